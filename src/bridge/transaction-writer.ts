import { errnoOf, isNotReady, ShimError } from '../error.ts';
import type { V1Device } from '../v1/device.ts';
import { mappedAt, wholeMappedAt } from '../v1/data-section.ts';
import type { V1RegisterAccess } from '../v1/registers.ts';
import type { SessionParts } from './buffer-reader.ts';
import { FRAME_HEADER_SIZE, parseFrameHeader } from './frame.ts';
import { HandOver } from './hand-over.ts';
import { refuseAfterFailedWrite } from './loss.ts';
import type { PresentV2State } from './present-v2-state.ts';

/** The resuming half: a stream of bytes, cut anywhere, written as v1 transactions. */
export class TransactionWriter {
  readonly #device: V1Device;
  readonly #registers: V1RegisterAccess;
  readonly #my: PresentV2State;
  readonly #handOver: HandOver;
  readonly #framed: boolean;
  /** Where a frame header that comes in pieces is collected. */
  readonly #header: Uint8Array;

  constructor({ device, registers, my, live, framed }: SessionParts, header: Uint8Array) {
    this.#device = device;
    this.#registers = registers;
    this.#my = my;
    this.#handOver = new HandOver(my, live);
    this.#framed = framed;
    this.#header = header;
  }

  /** write(2) of the data fd. */
  write(from: Uint8Array): number {
    return this.#remembering(() =>
      this.#framed ? this.#writeFramed(from) : this.#writeTransaction(from, Number.POSITIVE_INFINITY),
    );
  }

  /** A write that fails is remembered: what follows would not be the state that was sent. */
  #remembering<T>(write: () => T): T {
    const my = this.#my;
    refuseAfterFailedWrite(my.refused_errno);
    try {
      return write();
    } catch (error) {
      if (!isNotReady(error)) my.refused_errno = errnoOf(error);
      throw error;
    }
  }

  /** Where the next bytes of a transaction lie in the driver's mapped data section. */
  room(length: number): Uint8Array | undefined {
    const my = this.#my;
    this.#remembering(() => this.#openTransaction(Number.POSITIVE_INFINITY));
    return mappedAt(this.#device, my.space_offset + my.filled, Math.min(length, my.space_size - my.filled));
  }

  /** The bytes are where room() said. */
  fill(length: number): void {
    this.#remembering(() => this.#take(length));
  }

  #openTransaction(left: number): void {
    const my = this.#my;
    if (my.filled === my.space_size) this.#finishTransaction();
    if (my.filled > 0) return;
    const { offset, size } = this.#registers.dataSpace();
    my.space_offset = offset;
    my.space_size = Math.min(size, left);
  }

  /** Adds bytes to the current transaction, which ends when the data section is full or `left` bytes are there. */
  #writeTransaction(from: Uint8Array, left: number): number {
    const my = this.#my;
    this.#openTransaction(left);
    const piece = from.subarray(0, my.space_size - my.filled);
    const at = my.space_offset + my.filled;
    const room = wholeMappedAt(this.#device, at, piece.length);
    if (room === undefined) this.#device.write(at, piece);
    else room.set(piece);
    this.#take(piece.length);
    return piece.length;
  }

  /** Bytes are in the data section. */
  #take(length: number): void {
    const my = this.#my;
    my.filled += length;
    my.session_read += length;
    if (my.filled < my.space_size) return;
    try {
      this.#finishTransaction();
    } catch (error) {
      if (!isNotReady(error)) throw error; // "not yet": the bytes are taken, the next call finishes first
    }
  }

  #writeFramed(from: Uint8Array): number {
    const my = this.#my;
    let taken = 0;
    try {
      while (taken < from.length) {
        if (my.frame_left === 0) taken += this.#takeFrameHeader(from.subarray(taken));
        else {
          const took = this.#writeTransaction(from.subarray(taken, taken + my.frame_left), my.frame_left);
          my.frame_left -= took;
          taken += took;
        }
      }
    } catch (error) {
      if (taken === 0 || !isNotReady(error)) throw error;
    }
    return taken;
  }

  /** Collects a frame header, however it was cut. Returns the bytes taken; `frame_left` is set once it is complete. */
  #takeFrameHeader(from: Uint8Array): number {
    const my = this.#my;
    const piece = from.subarray(0, FRAME_HEADER_SIZE - my.header_filled);
    this.#header.set(piece, my.header_filled);
    my.header_filled += piece.length;
    if (my.header_filled === FRAME_HEADER_SIZE) {
      my.header_filled = 0;
      my.frame_left = parseFrameHeader(this.#header);
    }
    return piece.length;
  }

  /** Says how much of the data section was filled: the driver consumes it before the write returns. */
  #finishTransaction(): void {
    const my = this.#my;
    if (my.filled === 0) return;
    this.#handOver.hand(() => this.#registers.setDataSize(my.filled));
    my.filled = 0;
  }

  /** The end of the stream: hands over what is left. Throws `EINVAL` if it ends inside a frame, and more can come. */
  finish(): void {
    const { frame_left, header_filled } = this.#my;
    if (frame_left > 0 || header_filled > 0) {
      throw new ShimError(
        'ERR_STREAM_TRUNCATED',
        `data fd: the stream ends inside a frame, ${frame_left} bytes early`,
        {
          errno: 'EINVAL',
        },
      );
    }
    this.#remembering(() => {
      this.#handOver.check();
      this.#finishTransaction();
    });
  }
}
