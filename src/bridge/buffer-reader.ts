import { isNotReady, ShimError } from '../error.ts';
import type { V1Device } from '../v1/device.ts';
import { mappedAt, pieceAt, wholeMappedAt } from '../v1/data-section.ts';
import type { V1RegisterAccess } from '../v1/registers.ts';
import type { PrecopyInfo } from '../v2/device.ts';
import { V2, type V2State } from '../v2/states.ts';
import { FRAME_HEADER_SIZE, frameHeader } from './frame.ts';
import type { PresentV2Live, PresentV2State } from './present-v2-state.ts';

/** What the two halves of a presented session work on. */
export interface SessionParts {
  readonly device: V1Device;
  readonly registers: V1RegisterAccess;
  readonly my: PresentV2State;
  readonly live: PresentV2Live;
  readonly framed: boolean;
}

const NOTHING = new Uint8Array(0);

/** The saving half: v1 buffers, read as a stream of bytes with any buffer sizes. */
export class BufferReader {
  readonly #device: V1Device;
  readonly #registers: V1RegisterAccess;
  readonly #my: PresentV2State;
  readonly #live: PresentV2Live;
  readonly #framed: boolean;
  #carry: Uint8Array;
  /** The error with which fetching a buffer ahead ended: the next read or look throws it. */
  #owed: unknown;

  constructor({ device, registers, my, live, framed }: SessionParts, carry: Uint8Array) {
    this.#device = device;
    this.#registers = registers;
    this.#my = my;
    this.#live = live;
    this.#framed = framed;
    this.#carry = carry;
    const hasRest = my.buffer_pos < my.buffer_size && my.carried === 0;
    if (hasRest && live.kept === my.buffers) this.#readFromCarry(); // a predecessor was killed over the change of state
  }

  /** read(2) of the data fd in a saving state. */
  read(state: V2State, into: Uint8Array): number {
    if (into.length === 0 || !this.#hasBuffer(state)) return 0;
    const my = this.#my;
    const header = my.header_left > 0 ? frameHeader(my.buffer_size).subarray(-my.header_left) : NOTHING;
    const done = Math.min(header.length, into.length);
    into.set(header.subarray(0, done));
    const length = Math.min(into.length - done, my.buffer_size - my.buffer_pos);
    const copied = this.#copy(into.subarray(done, done + length));
    my.header_left -= done; // from here on nothing fails
    this.consume(copied);
    return done + copied;
  }

  /** Where the next bytes lie, in the driver's mapped data section or where they were carried to; none at the end. */
  peek(state: V2State, length: number): Uint8Array | undefined {
    const my = this.#my;
    if (!this.#hasBuffer(state)) return NOTHING;
    const from = my.buffer_offset + my.buffer_pos;
    const count = Math.min(length, my.buffer_size - my.buffer_pos);
    return my.carried === 1 ? this.#carry.subarray(from, from + count) : mappedAt(this.#device, from, count);
  }

  /** The user has taken the next bytes. */
  consume(length: number): void {
    this.#my.buffer_pos += length;
    this.#my.session_read += length;
  }

  /** Fetches the next buffer once the last one was read to its end. */
  readAhead(): void {
    const my = this.#my;
    if (my.buffer_size === 0 || my.buffer_pos < my.buffer_size || this.#owed !== undefined) return;
    try {
      this.#nextBuffer();
    } catch (error) {
      if (!isNotReady(error)) this.#owed = error;
    }
  }

  /** The session is over: nobody is to get the error of a buffer that was fetched ahead. */
  forget(): void {
    this.#owed = undefined;
  }

  /** True if a buffer has bytes to read; false at the end of the stream. In pre-copy it throws `ENOMSG` if there are none now. */
  #hasBuffer(state: V2State): boolean {
    const my = this.#my;
    const owed = this.#owed;
    this.#owed = undefined;
    if (owed !== undefined) throw owed;
    if (my.buffer_pos < my.buffer_size || this.#nextBuffer()) return true;
    if (state === V2.STOP_COPY) {
      this.#checkAnything();
      return false;
    }
    throw new ShimError('ERR_NO_DATA_NOW', 'data fd: no data now, the device is in pre-copy', { errno: 'ENOMSG' });
  }

  /**
   * At the end of the stream. A driver that gave its state once and has none at all now may simply not have taken it again (mlx5,
   * patches of October 2021: mlx5vf_pci_save_device_data keeps what it has read until a reset): nobody can tell, so it is no end.
   */
  #checkAnything(): void {
    const { session_read, last_total } = this.#my;
    if (session_read > 0 || last_total === 0) return;
    throw new ShimError(
      'ERR_DEVICE',
      `v1 driver: has nothing to save, after ${last_total} bytes the last time: the device must be reset before it is saved again`,
      { errno: 'EIO' },
    );
  }

  /** Acknowledges the last buffer and fetches the next; false if there is none (now). */
  #nextBuffer(): boolean {
    const my = this.#my;
    const again = this.#isAsked();
    if (!again && this.#readPending() === 0) return false;
    this.#live.asked = my.buffers + 1; // until the buffer is known, a read of pending_bytes would acknowledge it unread
    const { offset, size } = this.#registers.dataBuffer();
    my.buffers += 1;
    if (size === 0) return again && this.#nextBuffer();
    if (size > 1 && my.last_pending === 1) my.pending_is_yes = 1;
    my.carried = 0;
    my.buffer_offset = offset;
    my.buffer_size = size;
    my.buffer_pos = 0;
    my.header_left = this.#framed ? FRAME_HEADER_SIZE : 0;
    return true;
  }

  /** True if a buffer was asked for that is not known yet. */
  #isAsked(): boolean {
    return this.#live.asked > this.#my.buffers;
  }

  /** Reads pending_bytes, which acknowledges the buffer before: only when that was read to its end. */
  #readPending(): number {
    const my = this.#my;
    const pending = this.#counted(this.#registers.pendingBytes());
    if (my.pending_known === 0) {
      my.pending_known = 1;
      my.first_pending = pending;
    }
    my.last_pending = pending;
    my.pending_read = my.session_read;
    return pending;
  }

  /** Drivers may say no more than that something is left: a mere 1, or a number that none has. It may be a whole buffer. */
  #counted(pending: number): number {
    const isYes = (pending === 1 && this.#my.pending_is_yes === 1) || pending >= Number.MAX_SAFE_INTEGER;
    return isYes ? Math.max(1, this.#device.dataSection.size) : pending;
  }

  /** Brings last_pending up to date, if reading it acknowledges nothing that was not read; false if it would. */
  #refresh(): boolean {
    const my = this.#my;
    if (my.buffer_pos < my.buffer_size || this.#isAsked()) return false;
    this.#readPending();
    return true;
  }

  /** Bytes of the stream that are left, as far as the driver has said. */
  knownLeft(): number {
    const my = this.#my;
    const inBuffer = my.header_left + my.buffer_size - my.buffer_pos;
    return Math.max(inBuffer, my.last_pending - (my.session_read - my.pending_read));
  }

  /** Bytes of the stream that are left from here. 0 only at its end, of which pre-copy knows nothing. */
  left(state: V2State): number {
    let isFresh = false;
    try {
      isFresh = this.#refresh();
    } catch (error) {
      if (isNotReady(error)) throw error; // any other is told to whoever reads
    }
    const left = this.knownLeft();
    return left === 0 && !(isFresh && state === V2.STOP_COPY) ? 1 : left;
  }

  /** The session's first pending_bytes is the initial part until it was read out; what grows later is dirty. */
  precopyInfo(): PrecopyInfo {
    const my = this.#my;
    this.#refresh();
    const left = Math.max(0, my.last_pending - (my.session_read - my.pending_read));
    const initialBytes = Math.min(left, Math.max(0, my.first_pending - my.session_read));
    return { initialBytes, dirtyBytes: left - initialBytes };
  }

  /** Before a state write: what is left of a buffer that was shown is kept, since the driver may reuse its place. */
  keepBuffer(): void {
    const my = this.#my;
    const rest = my.buffer_size - my.buffer_pos;
    if (rest <= 0 || my.carried === 1) return;
    if (this.#carry.length < rest) this.#carry = new Uint8Array(rest);
    for (let kept = 0; kept < rest;)
      kept += this.#copyFromRegion(my.buffer_pos + kept, this.#carry.subarray(kept, rest));
    this.#live.kept = my.buffers;
    this.#readFromCarry();
  }

  #readFromCarry(): void {
    const my = this.#my;
    my.carried = 1;
    my.buffer_offset = 0;
    my.buffer_size -= my.buffer_pos;
    my.buffer_pos = 0;
  }

  /** Copies the next bytes of the buffer and returns how many. */
  #copy(into: Uint8Array): number {
    const { carried, buffer_offset, buffer_pos } = this.#my;
    if (carried === 0) return this.#copyFromRegion(buffer_pos, into);
    const from = buffer_offset + buffer_pos;
    into.set(this.#carry.subarray(from, from + into.length));
    return into.length;
  }

  /**
   * Copies bytes of the buffer in the region, from `at` in it, and returns how many. A driver is asked once for each, as some count
   * (HiSilicon, patches of 2021: acc_vf_data_transfer): if it fails behind some, these are returned, and it is asked for the rest
   * when that is wanted.
   */
  #copyFromRegion(at: number, into: Uint8Array): number {
    const begin = this.#my.buffer_offset;
    const bytes =
      wholeMappedAt(this.#device, begin + at, into.length) ?? this.#device.bufferAt?.(begin + at, into.length);
    if (bytes !== undefined) {
      into.set(bytes);
      return into.length;
    }
    let done = 0;
    try {
      while (done < into.length) {
        const from = begin + at + done;
        const piece = pieceAt(from, begin, into.length - done);
        this.#device.read(from, into.subarray(done, done + piece));
        done += piece;
      }
    } catch (error) {
      if (done === 0 || !(error instanceof ShimError)) throw error;
    }
    return done;
  }
}
