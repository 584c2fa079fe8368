import { errnoNameOrEio, hasErrno, isNotReady, ShimError } from '../error.ts';
import { readData } from '../v2/data-fd.ts';
import type { V2DataSession } from '../v2/device.ts';
import { isPreCopy, V2, type V2State } from '../v2/states.ts';
import type { PresentV1State } from './present-v1-state.ts';

/**
 * What the first buffer shows at most, in bytes. Smaller ones cost more calls, larger ones leave the processor's cache before the user reads
 * them, which costs less than calls do once there are many.
 */
const FIRST_BUFFER = 2 * 1024 * 1024;
/** What any buffer that grows shows at most, in bytes: calls cost nothing beside a copy of so much. */
export const LARGEST_BUFFER = 16 * 1024 * 1024;
const LARGEST_PAGE = 65_536;

/**
 * The saving half of presentV1: bytes of the data fd, staged in the data section until the user acknowledges them. One buffer is in one half of
 * the section, the next in the other, so that it can be read while the user takes the first.
 */
export class Staging {
  readonly #section: Uint8Array;
  /** The most bytes that the first buffer shows, and that any does. */
  readonly #first: number;
  readonly #most: number;
  readonly #my: PresentV1State;

  /** `length`: the most bytes that one buffer shows; without it, they grow. */
  constructor(section: Uint8Array, length: number | undefined, my: PresentV1State) {
    this.#section = section;
    this.#first = Math.min(section.length, length ?? FIRST_BUFFER);
    this.#most = length === undefined ? Math.max(this.#first, Math.min(halfOf(section), LARGEST_BUFFER)) : this.#first;
    this.#my = my;
  }

  get #hasHalves(): boolean {
    return 2 * this.#most <= this.#section.length;
  }

  /** The most bytes that the next buffer shows. In pre-copy the guest runs, and small ones keep it from waiting for its devices. */
  #length(state: V2State): number {
    return state === V2.STOP_COPY ? Math.max(this.#first, this.#my.length) : this.#first;
  }

  /** Where the staged bytes begin in the data section. */
  get offset(): number {
    return this.#begin(this.#my.place);
  }

  #begin(place: number): number {
    return place * this.#most;
  }

  /** The user has taken the staged bytes. */
  acknowledge(): void {
    const my = this.#my;
    my.staged = my.ahead;
    my.ahead = 0;
    my.shown = 0;
    if (this.#hasHalves) my.place = 1 - my.place;
  }

  /**
   * Reads into the empty data section, until a buffer is full or the driver has no more (now, or for good). An error behind
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
    this.#read(state, session(), my.place, (filled) => (my.staged = filled));
  }

  /**
   * Reads what comes next in stop-and-copy while the user takes what is shown. To the same place as fill() would once that is
   * acknowledged: a predecessor that was killed over it may have left bytes there. What goes wrong is told by then. If the device gives
   * data while it is not read, it is told to, and where they belong.
   */
  fillAhead(open: () => V2DataSession): void {
    const my = this.#my;
    if (my.shown === 0 || my.ahead > 0 || my.ended === 1 || my.deferred_errno !== 0) return;
    try {
      const session = open();
      const place = 1 - my.place;
      if (session.beginRead !== undefined) session.beginRead(this.#hasHalves ? this.#memory(place) : undefined);
      else if (this.#hasHalves) this.#read(V2.STOP_COPY, session, place, (filled) => (my.ahead = filled));
    } catch (error) {
      if (isNotReady(error)) return;
      if (!(error instanceof ShimError)) throw error;
      my.deferred_errno = error.errnoNumber;
    }
  }

  /** Where the next buffer of stop-and-copy is read to. */
  #memory(place: number): Uint8Array {
    const begin = this.#begin(place);
    return this.#section.subarray(begin, begin + this.#length(V2.STOP_COPY));
  }

  #read(state: V2State, from: V2DataSession, place: number, tell: (filled: number) => void): void {
    const my = this.#my;
    const begin = this.#begin(place);
    const length = this.#length(state);
    let filled = 0;
    try {
      while (filled < length) {
        const got = readData(from, this.#section.subarray(begin + filled, begin + length));
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
      tell(filled);
      my.read_total += filled;
      if (state === V2.STOP_COPY && filled === length) my.length = Math.min(2 * length, this.#most);
    }
  }
}

/** Half a data section, as whole pages of any machine. */
function halfOf(section: Uint8Array): number {
  const half = Math.floor(section.length / 2);
  return half - (half % LARGEST_PAGE);
}
