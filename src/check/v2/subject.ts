import type { ErrnoName } from '../../abi/errno.ts';
import { hasErrno } from '../../error.ts';
import { run } from '../../device/migratable.ts';
import { begunSession, readData, writeData } from '../../v2/data-fd.ts';
import type { V2DataSession, V2Device } from '../../v2/device.ts';
import { hasState } from '../../v2/fsm.ts';
import { V2, v2StateName, type V2State } from '../../v2/states.ts';
import type { DmaLog } from '../../vfio/dma-log.ts';
import { Patience } from '../attempt.ts';
import { mustBe, NotTried, prepare } from '../rule.ts';

/** A larger state is not kept in memory. */
const LARGEST_STATE = 256 * 2 ** 20;
const BLOCK = 65_536;
/** Blocks that are read in pre-copy at most: a device may go on for ever. */
const PRE_COPY_BLOCKS = 1000;

/** A v2 device on which rules are tried. */
export class V2Subject {
  readonly device: V2Device;
  readonly log: DmaLog | undefined;
  readonly #patience = new Patience();

  constructor(device: V2Device, log: DmaLog | undefined) {
    this.device = device;
    this.log = log;
  }

  /** Before each rule: the device runs, with no session. */
  begin(): void {
    this.device.reset();
    if (this.state() !== V2.RUNNING) run({ protocol: 'v2', device: this.device }, this.#patience.begin());
  }

  /** The same in the middle of a rule. */
  again(): void {
    prepare(() => this.begin());
  }

  has(state: V2State): boolean {
    return hasState(this.device.migrationFlags, state);
  }

  state(): V2State {
    return this.#patience.await(() => this.device.getState());
  }

  set(state: number): V2DataSession | undefined {
    return this.#patience.await(() => this.device.setState(state as V2State));
  }

  refusal(operation: () => unknown): ErrnoName | undefined {
    return this.#patience.refusal(operation);
  }

  await<T>(operation: () => T): T {
    return this.#patience.await(operation);
  }

  /** Brings the device to a state from which a rule goes on. */
  come(state: V2State): V2DataSession | undefined {
    return prepare(() => {
      const session = this.set(state);
      this.mustBeIn(state);
      return session;
    });
  }

  /** The same, to one with a session that begins. */
  begun(state: V2State): V2DataSession {
    const session = this.come(state);
    return prepare(() => begunSession(state, session));
  }

  /** The same, so that the device may leave the state: its data was read, or a state has been written. */
  comeToLeave(state: V2State): void {
    if (state === V2.RESUMING) this.resumingWith(this.saved());
    else if (state === V2.STOP_COPY) prepare(() => this.readToEnd(this.begun(state)));
    else if (state !== V2.RUNNING) this.come(state);
  }

  mustBeIn(state: V2State): void {
    const found = this.state();
    mustBe(found === state, `the device is in ${v2StateName(found)}, not in ${v2StateName(state)}`);
  }

  read(session: V2DataSession, into: Uint8Array): number {
    return this.#patience.await(() => readData(session, into));
  }

  /** All that there is until the end of the stream, `block` bytes at a time: the first 4 KiB, and in larger blocks from there on. */
  readToEnd(session: V2DataSession, block = BLOCK): Uint8Array {
    const pieces: Uint8Array[] = [];
    for (let length = 0; ;) {
      const piece = new Uint8Array(length < 4096 ? block : BLOCK);
      const read = this.read(session, piece);
      if (read === 0) return Buffer.concat(pieces);
      pieces.push(piece.subarray(0, read));
      length += read;
      if (length > LARGEST_STATE) throw new NotTried(`the state has more than ${LARGEST_STATE} bytes`);
    }
  }

  /** What pre-copy has until it has nothing for the moment. */
  readPreCopy(session: V2DataSession): Uint8Array {
    const pieces: Uint8Array[] = [];
    for (let n = 0; n < PRE_COPY_BLOCKS; n += 1) {
      const piece = new Uint8Array(BLOCK);
      const read = this.readNow(session, piece);
      if (typeof read === 'string' || read === 0) break;
      pieces.push(piece.subarray(0, read));
    }
    return Buffer.concat(pieces);
  }

  /** A read in pre-copy: how much there was, or `ENOMSG`. */
  readNow(session: V2DataSession, into: Uint8Array): number | 'ENOMSG' {
    try {
      return this.read(session, into);
    } catch (error) {
      if (hasErrno(error, 'ENOMSG')) return 'ENOMSG';
      throw error;
    }
  }

  /** A saved state of this device, which then runs. */
  saved(): Uint8Array {
    return prepare(() => {
      const state = this.readToEnd(this.begun(V2.STOP_COPY));
      this.again();
      if (state.length > 0) return state;
      throw new NotTried('the device has no state: its stream is empty');
    });
  }

  /** A session to which a state is written. */
  resuming(): V2DataSession {
    return this.begun(V2.RESUMING);
  }

  /** The same, with all of a state written. */
  resumingWith(state: Uint8Array): V2DataSession {
    const session = this.resuming();
    prepare(() => this.write(session, state));
    return session;
  }

  write(session: V2DataSession, bytes: Uint8Array, block = BLOCK): void {
    for (let done = 0; done < bytes.length;) {
      const piece = bytes.subarray(done, done + (done < 4096 ? block : BLOCK));
      done += this.#patience.await(() => writeData(session, piece));
    }
  }

  /** Loads a state, and has the device run. */
  load(state: Uint8Array, block = BLOCK): void {
    this.write(this.resuming(), state, block);
    this.set(V2.RUNNING);
    this.mustBeIn(V2.RUNNING);
  }

  /** A migration of this device to itself, from RUNNING to RUNNING without a reset. */
  migrate(): void {
    const state = this.readToEnd(this.begun(V2.STOP_COPY));
    this.set(V2.RUNNING);
    this.load(state);
  }
}

/** Of rules about optional states. */
export function lacks(state: V2State): (subject: V2Subject) => string | undefined {
  return (subject) =>
    subject.has(state)
      ? undefined
      : `the device has no ${v2StateName(state)} (migration flags ${subject.device.migrationFlags})`;
}

export const lacksPreCopy = lacks(V2.PRE_COPY);
