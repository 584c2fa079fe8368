import { errnoNumber, type ErrnoName } from '../abi/errno.ts';
import { errnoOf, isNotReady, ShimError } from '../error.ts';
import { wholeMappedAt } from '../v1/data-section.ts';
import type { V1Device } from '../v1/device.ts';
import { DATA_OFFSET } from '../v1/region.ts';
import type { V1RegisterAccess } from '../v1/registers.ts';
import type { DraftParts } from './draft-buffers.ts';
import { HandOver } from './hand-over.ts';
import { refuseAfterFailedWrite } from './loss.ts';
import type { PresentDraftLive, PresentDraftState } from './present-draft-state.ts';

/** The resuming half of a presented draft: buffers of its user, as v1 transactions. */
export class DraftWriter {
  readonly #device: V1Device;
  readonly #registers: V1RegisterAccess;
  readonly #section: Uint8Array;
  readonly #my: PresentDraftState;
  readonly #live: PresentDraftLive;
  readonly #handOver: HandOver;

  constructor({ device, registers, section, my, live }: DraftParts) {
    this.#device = device;
    this.#registers = registers;
    this.#section = section;
    this.#my = my;
    this.#live = live;
    this.#handOver = new HandOver(my, live);
  }

  /** Has the device take a buffer before it returns: one transaction, if the device has room for it at once. */
  write(offset: bigint, size: bigint): void {
    const bytes = this.#bytes(offset, size);
    const my = this.#my;
    refuseAfterFailedWrite(my.refused_errno);
    my.moved = 1;
    try {
      while (my.pushed < bytes.length) my.pushed += this.#transaction(bytes.subarray(my.pushed));
    } catch (error) {
      if (!isNotReady(error)) {
        my.pushed = 0;
        my.refused_errno = errnoOf(error);
      }
      throw error;
    }
    my.pushed = 0;
  }

  /** The bytes of a buffer are not where its size said that they are: whatever the device took of it, it has not got its state. */
  refuse(errno: ErrnoName): void {
    this.#my.moved = 1;
    this.#my.pushed = 0;
    this.#my.refused_errno = errnoNumber(errno);
  }

  /** The session is over: what was begun in it belongs to none that comes. */
  forget(): void {
    const my = this.#my;
    my.offset_written = 0;
    my.size_written = 0;
    my.pushed = 0;
    my.refused_errno = 0;
    my.transactions = Math.max(my.transactions, this.#live.handing);
  }

  #bytes(offset: bigint, size: bigint): Uint8Array {
    const at = offset - BigInt(DATA_OFFSET);
    const { length } = this.#section;
    if (at >= 0n && at <= length && size <= BigInt(length) - at) {
      return this.#section.subarray(Number(at), Number(at + size));
    }
    throw new ShimError(
      'ERR_ACCESS',
      `migration region: ${size} bytes at ${offset}, the data section has ${length} at ${DATA_OFFSET}`,
      { errno: 'EINVAL' },
    );
  }

  #transaction(bytes: Uint8Array): number {
    const { offset, size } = this.#registers.dataSpace();
    const piece = bytes.subarray(0, size);
    if (!this.#handOver.isHanded) {
      const room = wholeMappedAt(this.#device, offset, piece.length);
      if (room === undefined) this.#device.write(offset, piece);
      else room.set(piece);
    }
    this.#handOver.hand(() => this.#registers.setDataSize(piece.length));
    return piece.length;
  }
}
