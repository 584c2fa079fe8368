import { ShimError } from '../error.ts';
import { pieceAt, wholeMappedAt } from '../v1/data-section.ts';
import type { V1Device } from '../v1/device.ts';
import type { V1RegisterAccess } from '../v1/registers.ts';
import { Asked, type PresentDraftState } from './present-draft-state.ts';

/** What a presented draft works on. */
export interface DraftParts {
  readonly device: V1Device;
  readonly registers: V1RegisterAccess;
  /** The draft's data section, which its user maps. */
  readonly section: Uint8Array;
  /** As large: the buffer that was fetched and not taken. The section itself may get a bitmap of dirty pages at any time. */
  readonly aside: Uint8Array;
  readonly my: PresentDraftState;
}

/** The saving half of a presented draft: v1 buffers, one for one. */
export class DraftBuffers {
  readonly #device: V1Device;
  readonly #registers: V1RegisterAccess;
  readonly #section: Uint8Array;
  readonly #aside: Uint8Array;
  readonly #my: PresentDraftState;

  constructor({ device, registers, section, aside, my }: DraftParts) {
    this.#device = device;
    this.#registers = registers;
    this.#section = section;
    this.#aside = aside;
    this.#my = my;
  }

  /** Sets the next buffer aside, if none is and the device has one now. */
  fetch(): void {
    const my = this.#my;
    if (my.staged > 0 || (my.asked === Asked.NO && this.#readPending() === 0)) return;
    my.asked = Asked.BUFFER;
    const { offset, size } = this.#registers.dataBuffer();
    if (size > this.#aside.length) {
      throw new ShimError(
        'ERR_DEVICE',
        `v1 driver: a buffer of ${size} bytes, the data section has ${this.#aside.length}`,
        { errno: 'EIO' },
      );
    }
    this.#copyFromRegion(offset, this.#aside.subarray(0, size));
    my.asked = Asked.NO;
    my.staged = size;
    my.in_section = 0;
  }

  /** The device's pending_bytes, which acknowledges what was taken; it is not asked again while a buffer is not taken. */
  pending(): number {
    const my = this.#my;
    if (my.staged > 0) return Math.max(my.staged, my.pending);
    return my.asked === Asked.BUFFER ? my.pending : this.#readPending();
  }

  /** Puts the buffer that is set aside to where the user looks for it. */
  show(): void {
    const my = this.#my;
    if (my.in_section === 1) return;
    this.#section.set(this.#aside.subarray(0, my.staged));
    my.in_section = 1;
    my.moved = 1;
  }

  /** The user has the buffer. */
  take(): void {
    const my = this.#my;
    my.staged = 0;
    my.in_section = 0;
    my.offset_read = 0;
    my.size_read = 0;
  }

  #readPending(): number {
    const my = this.#my;
    my.pending = this.#registers.pendingBytes();
    my.asked = my.pending > 0 ? Asked.PENDING : Asked.NO;
    return my.pending;
  }

  #copyFromRegion(begin: number, into: Uint8Array): void {
    const bytes = wholeMappedAt(this.#device, begin, into.length);
    if (bytes !== undefined) {
      into.set(bytes);
      return;
    }
    for (let done = 0; done < into.length;) {
      const offset = begin + done;
      const piece = into.subarray(done, done + pieceAt(offset, begin, into.length - done));
      this.#device.read(offset, piece);
      done += piece.length;
    }
  }
}
