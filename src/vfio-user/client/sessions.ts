import { VFIO_USER_MIG_DATA_READ, VFIO_USER_MIG_DATA_WRITE, vfio_user_mig_data } from '../../abi/vfio-user.ts';
import { ShimError } from '../../error.ts';
import type { PrecopyInfo, V2DataSession } from '../../v2/device.ts';
import { hasSession, isPreCopy, V2, type V2State } from '../../v2/states.ts';
import { dataError } from '../../vfio/client/errors.ts';
import type { DataSessions } from '../../vfio/port.ts';
import { checked, type Asked } from '../wire/link.ts';
import { closeFds, type Message } from '../wire/message.ts';
import type { Server } from './server.ts';

const HEADER = vfio_user_mig_data.size;
const NOTHING = new Uint8Array(0);
const READ = 'VFIO_USER_MIG_DATA_READ';

/** `into`: where the data belong, if that is known. */
function readOf(size: number, into: Uint8Array | undefined): Asked {
  const body = vfio_user_mig_data.encode({ argsz: HEADER + size, size });
  const place = into && { head: HEADER, data: into.subarray(0, size) };
  return { command: VFIO_USER_MIG_DATA_READ, name: READ, body, place };
}

/** What the carrier notes of the session that goes on: the state in which the device was last seen. */
export class MessageSessions implements DataSessions {
  readonly #server: Server;
  #session: MessageSession | undefined;
  #state: V2State | undefined;

  constructor(server: Server) {
    this.#server = server;
  }

  change<T>(request: () => T): T {
    return request();
  }

  /**
   * Whether a change to a state that has succeeded has begun a session. No descriptor says so here: one that saves goes on from pre-copy to
   * stop-and-copy (linux/vfio.h: the "saving group").
   */
  begins(state: V2State): boolean {
    const session = this.#session;
    if (!hasSession(state)) return false;
    if (session === undefined || session.isClosed) return true;
    return (state === V2.RESUMING) !== session.isResuming;
  }

  /** The device has come to a state. */
  noteState(state: V2State): void {
    this.#state = state;
  }

  begin(): V2DataSession {
    this.end();
    this.#session = new MessageSession(this.#server, this.#state === V2.RESUMING, () => this.#state);
    return this.#session;
  }

  /** A session that an earlier client has begun can be used too: it has no descriptor that is lost. */
  current(state: () => V2State): V2DataSession | undefined {
    if (this.#session === undefined) {
      const now = state();
      if (!hasSession(now)) return undefined;
      this.#state = now;
      this.begin();
    }
    return this.#session;
  }

  end(): void {
    this.#session?.close();
    this.#session = undefined;
  }
}

/**
 * One saving or resuming session: MIG_DATA_READ and MIG_DATA_WRITE. Servers mark the end of the stream by less data than was asked for, and
 * need not know of a read behind it: none is made.
 */
class MessageSession implements V2DataSession {
  readonly #server: Server;
  readonly isResuming: boolean;
  readonly #state: () => V2State | undefined;
  /** What has come and was not read. */
  #ahead: Uint8Array = NOTHING;
  /** It lies in memory of the connection's, which has that back. */
  #isLent = false;
  #hasEnded = false;
  /** How many bytes the last read was to bring. */
  #last = 0;
  /** How many bytes a read is to bring that was begun. */
  #begun: number | undefined;
  isClosed = false;

  constructor(server: Server, isResuming: boolean, state: () => V2State | undefined) {
    this.#server = server;
    this.isResuming = isResuming;
    this.#state = state;
  }

  read(into: Uint8Array): number {
    this.#checkOpen();
    if (this.#ahead.length === 0 && into.length > 0) this.#fetch(into.length, into);
    const length = Math.min(into.length, this.#ahead.length);
    const bytes = this.#ahead.subarray(0, length);
    if (!isAt(bytes, into)) into.set(bytes);
    this.#ahead = this.#ahead.subarray(length);
    if (this.#ahead.length === 0) this.#taken();
    return length;
  }

  #taken(): void {
    const taken = this.#ahead;
    this.#ahead = NOTHING; // its memory is another message's from now on
    if (this.#isLent) this.#server.link.connection.recycle(taken);
  }

  #fetch(wanted: number, into?: Uint8Array): void {
    if (this.#hasEnded) return;
    const size = this.#begun ?? Math.min(wanted, this.#server.dataReadLimit);
    const { body, data = NOTHING } = this.#answer(READ, () => this.#read(size, into));
    const length = body.length + data.length;
    const given = body.length < HEADER ? -1 : vfio_user_mig_data.decode(body).size;
    if (given < 0 || given > size || HEADER + given > length) {
      const what = `MIG_DATA_READ of ${size} bytes returned ${given} in ${length}`;
      throw new ShimError('ERR_DEVICE', `vfio-user: ${what}`, { errno: 'EIO' });
    }
    this.#isLent = data.length === 0;
    this.#ahead = this.#isLent ? body.subarray(HEADER, HEADER + given) : data.subarray(0, given);
    this.#last = size;
    if (given < size && this.#state() === V2.STOP_COPY) this.#hasEnded = true;
  }

  /** The reply to a read of so many bytes, which may have been begun. */
  #read(size: number, into: Uint8Array | undefined): Message {
    const { link } = this.#server;
    const isBegun = this.#begun !== undefined;
    this.#begun = undefined;
    const reply = isBegun ? link.finish() : link.ask(readOf(size, into));
    closeFds(reply);
    return checked(reply, READ, link.connection.peer);
  }

  /**
   * The server makes the next reply while the last one is taken. That is received where it belongs; if nobody says where, it is asked for as
   * much as the last time.
   */
  readonly beginRead = (into?: Uint8Array): void => {
    const isNext =
      !this.isClosed && !this.isResuming && !this.#hasEnded && this.#begun === undefined && this.#ahead.length === 0;
    if (!isNext || this.#state() !== V2.STOP_COPY) return;
    const size = Math.min(into?.length ?? this.#last, this.#server.dataReadLimit);
    if (size === 0) return; // nothing was read yet
    this.#server.link.begin(readOf(size, into));
    this.#begun = size;
  };

  write(from: Uint8Array): number {
    this.#checkOpen();
    const piece = from.subarray(0, this.#server.dataWriteLimit);
    if (piece.length === 0) return 0;
    const body = new Uint8Array(HEADER + piece.length);
    vfio_user_mig_data.encode({ argsz: body.length, size: piece.length }, body);
    body.set(piece, HEADER);
    const name = 'VFIO_USER_MIG_DATA_WRITE';
    this.#answer(name, () => this.#server.link.request({ command: VFIO_USER_MIG_DATA_WRITE, name, body }));
    return piece.length;
  }

  #answer<T>(name: string, request: () => T): T {
    try {
      return request();
    } catch (error) {
      if (!(error instanceof ShimError) || error.code !== 'ERR_SYSCALL' || error.errno === undefined) throw error;
      throw dataError(name, error.errno);
    }
  }

  /** vfio-user has no VFIO_MIG_GET_PRECOPY_INFO: what there is now is known by reading it. */
  precopyInfo(): PrecopyInfo {
    this.#checkOpen();
    const state = this.#state();
    if (state === undefined || !isPreCopy(state)) {
      throw new ShimError('ERR_ACCESS', 'VFIO_MIG_GET_PRECOPY_INFO: the device is not in pre-copy', {
        errno: 'EINVAL',
      });
    }
    if (this.#ahead.length === 0) this.#fetch(this.#server.dataReadLimit);
    return { initialBytes: 0, dirtyBytes: this.#ahead.length };
  }

  close(): void {
    this.isClosed = true;
    if (this.#begun !== undefined) this.#server.link.abandon();
    this.#begun = undefined;
  }

  #checkOpen(): void {
    if (!this.isClosed) return;
    throw new ShimError('ERR_SESSION_ENDED', 'migration data: its session has ended', { errno: 'ENODEV' });
  }
}

/** Whether bytes lie at the beginning of this memory. */
function isAt(bytes: Uint8Array, { buffer, byteOffset }: Uint8Array): boolean {
  return bytes.buffer === buffer && bytes.byteOffset === byteOffset;
}
