import { errnoNameOrEio, hasErrno, isNotReady, ShimError } from '../error.ts';
import { readData } from '../v2/data-fd.ts';
import type { V2DataSession } from '../v2/device.ts';
import { isPreCopy, V2, type V2State } from '../v2/states.ts';
import type { PresentV1State } from './present-v1-state.ts';

/** The saving half of presentV1: bytes of the data fd, staged in the data section until the user acknowledges them. */
export class Staging {
  readonly #section: Uint8Array;
  readonly #length: number;
  readonly #my: PresentV1State;

  /** `limit`: the most bytes that one buffer shows. */
  constructor(section: Uint8Array, limit: number, my: PresentV1State) {
    this.#section = section;
    this.#length = Math.min(section.length, limit);
    this.#my = my;
  }

  /**
   * Reads ahead into the empty data section, until it is full or the driver has no more (now, or for good). An error behind
   * bytes that came is kept for the access that needs what comes after them.
   */
  fill(state: V2State, session: () => V2DataSession): void {
    const my = this.#my;
    if (my.staged > 0 || my.ended === 1) return;
    if (my.deferred_errno !== 0) {
      const errno = errnoNameOrEio(my.deferred_errno);
      my.deferred_errno = 0;
      throw new ShimError('ERR_DEVICE', `data fd: read failed with ${errno}`, { errno, syscall: 'read' });
    }
    const from = session();
    let filled = 0;
    try {
      while (filled < this.#length) {
        const got = readData(from, this.#section.subarray(filled, this.#length));
        if (got === 0) {
          if (state === V2.STOP_COPY) my.ended = 1;
          break;
        }
        filled += got;
      }
    } catch (error) {
      // in pre-copy nobody has to wait: what is not there yet comes later, and the user's guest runs meanwhile
      const noDataNow = isPreCopy(state) && (hasErrno(error, 'ENOMSG') || isNotReady(error));
      if (!noDataNow && filled === 0) throw error;
      if (!noDataNow && !isNotReady(error)) {
        if (!(error instanceof ShimError)) throw error;
        my.deferred_errno = error.errnoNumber;
      }
    } finally {
      my.staged = filled;
      my.read_total += filled;
    }
  }
}
