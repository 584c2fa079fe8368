import type { ErrnoName } from '../abi/errno.ts';
import { ShimError } from '../error.ts';
import type { PrecopyInfo, V2DataSession } from '../v2/device.ts';
import type { V2State } from '../v2/states.ts';
import { Session } from './session.ts';

/** The device that a session is of, and what it does for one. Each of the user's calls has its session checked once. */
export interface SessionOwner {
  /** The device's state. Throws `ENODEV` if the session of this number has ended. */
  checkSession(id: number): V2State;
  /** Whether the driver's data section is where bytes can be taken from and put. */
  readonly isInPlace: boolean;
  readData(state: V2State, into: Uint8Array): number;
  peekData(state: V2State, length: number): Uint8Array | undefined;
  consumeData(length: number): void;
  readAhead(id: number): void;
  writeData(from: Uint8Array): number;
  room(length: number): Uint8Array | undefined;
  fillRoom(length: number): void;
  precopyInfo(id: number): PrecopyInfo;
}

/** The data fd of one session of a presented device. */
export class PresentedSession implements V2DataSession {
  readonly #device: SessionOwner;
  readonly #id: number;
  readonly #kind: number;
  #closed = false;

  constructor(device: SessionOwner, id: number, kind: number) {
    this.#device = device;
    this.#id = id;
    this.#kind = kind;
  }

  read(into: Uint8Array): number {
    this.#checkOpen(Session.SAVING, 'EBADF');
    return this.#device.readData(this.#device.checkSession(this.#id), into);
  }

  peek(length: number): Uint8Array | undefined {
    this.#checkOpen(Session.SAVING, 'EBADF');
    if (length === 0 || !this.#device.isInPlace) return undefined;
    return this.#device.peekData(this.#device.checkSession(this.#id), length);
  }

  consume(length: number): void {
    this.#device.consumeData(length);
  }

  readAhead(): void {
    if (!this.#closed) this.#device.readAhead(this.#id);
  }

  write(from: Uint8Array): number {
    this.#checkOpen(Session.RESUMING, 'EBADF');
    this.#device.checkSession(this.#id);
    return from.length === 0 ? 0 : this.#device.writeData(from);
  }

  room(length: number): Uint8Array | undefined {
    this.#checkOpen(Session.RESUMING, 'EBADF');
    if (length === 0 || !this.#device.isInPlace) return undefined;
    this.#device.checkSession(this.#id);
    return this.#device.room(length);
  }

  fill(length: number): void {
    this.#device.fillRoom(length);
  }

  precopyInfo(): PrecopyInfo {
    this.#checkOpen(Session.SAVING, 'ENOTTY');
    return this.#device.precopyInfo(this.#id);
  }

  close(): void {
    this.#closed = true;
  }

  #checkOpen(kind: number, errno: ErrnoName): void {
    if (this.#closed) throw new ShimError('ERR_SESSION_ENDED', 'data fd: closed', { errno: 'EBADF' });
    if (this.#kind !== kind) throw new ShimError('ERR_ACCESS', 'data fd: not open for this', { errno });
  }
}
