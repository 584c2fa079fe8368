import { VFIO_USER_MIG_DATA_READ, VFIO_USER_MIG_DATA_WRITE, vfio_user_mig_data } from '../../abi/vfio-user.ts';
import { ShimError } from '../../error.ts';
import type { PrecopyInfo, V2DataSession } from '../../v2/device.ts';
import { hasSession, isPreCopy, V2, type V2State } from '../../v2/states.ts';
import { dataError } from '../../vfio/client/errors.ts';
import type { DataSessions } from '../../vfio/port.ts';
import { answerTo, type Asked } from '../wire/link.ts';
import type { Server } from './server.ts';

const HEADER = vfio_user_mig_data.size;
const NOTHING = new Uint8Array(0);
const READ = 'VFIO_USER_MIG_DATA_READ';

function readOf(size: number): Asked {
  const body = vfio_user_mig_data.encode({ argsz: HEADER + size, size });
  return { command: VFIO_USER_MIG_DATA_READ, name: READ, body };
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
  /** What was read ahead, as nothing else tells whether there is any. */
  #ahead: Uint8Array = NOTHING;
  #hasEnded = false;
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
    if (this.#ahead.length === 0 && into.length > 0) this.#fetch(into.length);
    const length = Math.min(into.length, this.#ahead.length);
    into.set(this.#ahead.subarray(0, length));
    this.#ahead = this.#ahead.subarray(length);
    if (this.#ahead.length === 0) {
      const taken = this.#ahead;
      this.#ahead = NOTHING; // its memory is another message's from now on
      this.#server.link.connection.recycle(taken);
    }
    return length;
  }

  #fetch(wanted: number): void {
    if (this.#hasEnded) return;
    const size = this.#begun ?? Math.min(wanted, this.#server.dataReadLimit);
    const reply = this.#answer(READ, () => this.#read(size));
    const given = reply.length < HEADER ? -1 : vfio_user_mig_data.decode(reply).size;
    if (given < 0 || given > size || HEADER + given > reply.length) {
      const what = `MIG_DATA_READ of ${size} bytes returned ${given} in ${reply.length}`;
      throw new ShimError('ERR_DEVICE', `vfio-user: ${what}`, { errno: 'EIO' });
    }
    this.#ahead = reply.subarray(HEADER, HEADER + given);
    if (this.#state() !== V2.STOP_COPY) return;
    if (given < size) this.#hasEnded = true;
    else this.#begin(size);
  }

  /** The reply to a read of so many bytes, which may have been begun. */
  #read(size: number): Uint8Array {
    const { link } = this.#server;
    if (this.#begun === undefined) return link.request(readOf(size));
    this.#begun = undefined;
    return answerTo(link.finish(), READ, link.connection.peer);
  }

  /** The server makes the next reply while this one is taken. That comes next in any case: only less than was asked for ends the data. */
  #begin(size: number): void {
    this.#server.link.begin(readOf(size));
    this.#begun = size;
  }

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

  #answer(name: string, request: () => Uint8Array): Uint8Array {
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
