import type { DeviceHandle } from '../../kernel/handle.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import type { Reach } from './reach.ts';
import { placeOf } from '../trap/run-mark.ts';

/**
 * The target's descriptor of a device, borrowed for the time of a call: a duplicate that was kept would keep the device open
 * when the target has closed it. This run's mark on the open file tells that it is the device that is meant.
 */
export class BorrowedFd implements DeviceHandle {
  readonly #place: number;
  readonly #reach: Reach;
  #tid = 0;
  #fd = -1;
  #own: OwnedFd | undefined;

  constructor(place: number, reach: Reach) {
    this.#place = place;
    this.#reach = reach;
  }

  /** Borrows that descriptor of that thread's process, until giveBack(). False if it is none, or of another file. */
  borrow(tid: number, fd: number): boolean {
    this.giveBack();
    this.#tid = tid;
    this.#fd = fd;
    return this.#take() !== undefined;
  }

  /** As borrow(), with a duplicate that somebody has already made. */
  lend(tid: number, fd: number, own: OwnedFd): void {
    if (this.#own !== own) this.giveBack();
    this.#tid = tid;
    this.#fd = fd;
    this.#own = own;
  }

  get number(): number {
    const own = this.#own ?? this.#take();
    if (own === undefined) throw refuse('ENODEV', 'the target has closed the device');
    return own.number;
  }

  giveBack(): void {
    this.#own?.close();
    this.#own = undefined;
  }

  #take(): OwnedFd | undefined {
    const own = this.#reach.duplicate(this.#tid, this.#fd);
    if (own === undefined) return undefined;
    if (placeOf(own.number) !== this.#place) {
      own.close();
      return undefined;
    }
    this.#own = own;
    return own;
  }
}
