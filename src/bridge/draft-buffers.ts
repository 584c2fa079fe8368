import { ShimError } from '../error.ts';
import { pieceAt, wholeMappedAt } from '../v1/data-section.ts';
import type { V1Device } from '../v1/device.ts';
import type { V1RegisterAccess } from '../v1/registers.ts';
import { Asked, type PresentDraftLive, type PresentDraftState } from './present-draft-state.ts';

/** What a presented draft works on. */
export interface DraftParts {
  readonly device: V1Device;
  readonly registers: V1RegisterAccess;
  /** The draft's data section, which its user maps. */
  readonly section: Uint8Array;
  /** As large: the buffer that was fetched and not taken. The section itself may get a bitmap of dirty pages at any time. */
  readonly aside: Uint8Array;
  readonly my: PresentDraftState;
  readonly live: PresentDraftLive;
}

/** The saving half of a presented draft: v1 buffers, one for one. */
export class DraftBuffers {
  readonly #device: V1Device;
  readonly #registers: V1RegisterAccess;
  readonly #section: Uint8Array;
  readonly #aside: Uint8Array;
  readonly #my: PresentDraftState;
  readonly #live: PresentDraftLive;

  constructor({ device, registers, section, aside, my, live }: DraftParts) {
    this.#device = device;
    this.#registers = registers;
    this.#section = section;
    this.#aside = aside;
    this.#my = my;
    this.#live = live;
  }

  /** Sets the next buffer aside, if none is and the device has one now. What has failed midway goes on where it was. */
  fetch(): void {
    const my = this.#my;
    const live = this.#live;
    const buffer = my.buffers + 1;
    if (my.staged > 0) return;
    if (live.kept !== buffer) {
      if (!this.#isAsked && my.asked === Asked.NO && this.#readPending() === 0) return;
      if (my.asked !== Asked.COPYING) this.#ask();
      this.#copy();
      live.kept_size = my.buffer_size;
      live.kept = buffer;
    }
    my.buffers = buffer;
    my.asked = Asked.NO;
    my.staged = live.kept_size;
    my.in_section = 0;
  }

  /** data_offset may have been read: until the buffer is known, a read of pending_bytes would acknowledge it unread. */
  get #isAsked(): boolean {
    return this.#live.asked > this.#my.buffers;
  }

  /** Has all of a buffer that was begun: a driver that leaves the state may have another one there. */
  finish(): void {
    if (this.#isAsked) this.fetch();
  }

  /** The device's pending_bytes, which acknowledges what was taken; it is not asked again while a buffer is not taken. */
  pending(): number {
    const my = this.#my;
    if (my.staged > 0) return Math.max(my.staged, my.pending);
    return this.#isAsked ? my.pending : this.#readPending();
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

  /** The session is over: what was asked for in it belongs to none that comes. */
  forget(): void {
    const my = this.#my;
    this.take();
    my.asked = Asked.NO;
    my.pending = 0;
    my.buffers = Math.max(my.buffers, this.#live.asked);
  }

  #readPending(): number {
    const my = this.#my;
    my.pending = this.#registers.pendingBytes();
    my.asked = my.pending > 0 ? Asked.PENDING : Asked.NO;
    return my.pending;
  }

  #ask(): void {
    const my = this.#my;
    this.#live.asked = my.buffers + 1;
    const { offset, size } = this.#registers.dataBuffer();
    if (size > this.#aside.length) {
      throw new ShimError(
        'ERR_DEVICE',
        `v1 driver: a buffer of ${size} bytes, the data section has ${this.#aside.length}`,
        { errno: 'EIO' },
      );
    }
    my.buffer_offset = offset;
    my.buffer_size = size;
    my.copied = 0;
    my.asked = Asked.COPYING;
  }

  #copy(): void {
    const my = this.#my;
    const { buffer_offset: begin, buffer_size: size } = my;
    const bytes = wholeMappedAt(this.#device, begin, size);
    if (bytes !== undefined) {
      this.#aside.set(bytes);
      return;
    }
    while (my.copied < size) {
      const offset = begin + my.copied;
      const length = pieceAt(offset, begin, size - my.copied);
      this.#device.read(offset, this.#aside.subarray(my.copied, my.copied + length));
      my.copied += length;
    }
  }
}
