import { struct } from '../../abi/struct.ts';
import { ShimError } from '../../error.ts';
import type { DirtyBitmap, DmaLog, IovaRange } from '../dma-log.ts';

/** More than the sections of memory of a VM. */
const MOST_RANGES = 32;

const logged_pages = struct('logged_pages', 16, {
  /** Ranges that are logged. */
  ranges: ['count', 0],
  /** As in live memory, when the last call had ended. */
  changes: ['count', 8],
});

const logged_range = struct('logged_range', 24, {
  iova: ['u64', 0],
  length: ['u64', 8],
  /** Its user was told that all of it is dirty, while it was logged: from then on, the log has all. */
  told: ['u8', 16],
});

const logged_pages_live = struct('logged_pages_live', 8, {
  /** Counts what has changed the driver's log: one change more than in the state, and what it came to is not known. */
  changes: ['count', 0],
});

export const LOGGED_PAGES_STATE_SIZE: number = logged_pages.size + MOST_RANGES * logged_range.size;
export const LOGGED_PAGES_LIVE_SIZE: number = logged_pages_live.size;

const WISHED_PAGE = 4096n;

/**
 * A driver's log of DMA for a user who says which memory it has only when it asks: the VMM of a draft. What it asks about for the
 * first time is logged from then on, and all of it is dirty. A log is begun for all ranges at once, so one range more begins it anew, and
 * what was logged before is lost: all that was logged is dirty once more.
 *
 * A report clears what it tells. A process that is killed with one under way leaves a log that does not have all: whoever goes on
 * finds more changes in live memory than in the state, and is refused.
 */
export class LoggedPages {
  readonly #find: () => DmaLog | undefined;
  readonly #state: Uint8Array;
  readonly #my: ReturnType<typeof logged_pages.view>;
  readonly #live: ReturnType<typeof logged_pages_live.view>;
  #log: DmaLog | undefined;

  /**
   * `find` is asked for the driver's log when one is needed. `state`: `LOGGED_PAGES_STATE_SIZE` bytes, which count when a call has ended; `live`:
   * `LOGGED_PAGES_LIVE_SIZE` bytes, which count at once.
   */
  constructor(
    find: () => DmaLog | undefined,
    state: Uint8Array = new Uint8Array(LOGGED_PAGES_STATE_SIZE),
    live: Uint8Array = new Uint8Array(LOGGED_PAGES_LIVE_SIZE),
  ) {
    this.#find = find;
    this.#state = state;
    this.#my = logged_pages.view(state);
    this.#live = logged_pages_live.view(live);
  }

  /** Nothing is logged before a range is known. */
  begin(): void {
    this.#my.ranges = 0;
    this.#my.changes = this.#live.changes;
  }

  end(): void {
    const my = this.#my;
    if (my.ranges === 0 && my.changes === this.#live.changes) return;
    my.ranges = 0;
    this.#driverLog().stop();
  }

  /** True if the log has all that was written to in a range. If it has not, all of the range is to be told as dirty. */
  covers(range: IovaRange): boolean {
    const ranges = this.#ranges();
    const own = ranges.find((each) => contains(each, range));
    if (own !== undefined) return own.told === 1;
    const apart = ranges.filter((each) => !overlaps(each, range));
    const joined = ranges.filter((each) => overlaps(each, range)).reduce(union, range);
    this.#beginAnew([...apart.map(({ iova, length }) => ({ iova, length })), joined]);
    return false;
  }

  /** All of a range was told as dirty. */
  toldAll({ iova, length }: IovaRange): void {
    const own = this.#ranges().find((each) => each.iova === iova && each.length === length);
    if (own !== undefined) own.told = 1;
  }

  readAndClear(range: IovaRange, into: DirtyBitmap): void {
    this.#change((log) => log.readAndClear(range, into));
  }

  #ranges(): ReturnType<typeof logged_range.view>[] {
    const { size } = logged_range;
    return Array.from({ length: this.#my.ranges }, (_, n) =>
      logged_range.view(this.#state, logged_pages.size + n * size),
    );
  }

  #beginAnew(ranges: readonly IovaRange[]): void {
    if (ranges.length > MOST_RANGES) throw lost(`${ranges.length} ranges of memory, ${MOST_RANGES} are the most`);
    this.#change((log) => {
      stopIfOn(log);
      log.start(ranges, WISHED_PAGE);
    });
    this.#my.ranges = ranges.length;
    for (const [n, own] of this.#ranges().entries()) Object.assign(own, ranges[n], { told: 0 });
  }

  #change(change: (log: DmaLog) => void): void {
    const my = this.#my;
    const live = this.#live;
    if (my.changes !== live.changes) throw lost('what it had was told to a process that is gone, or it has failed');
    const log = this.#driverLog();
    live.changes += 1;
    change(log);
    my.changes += 1;
  }

  #driverLog(): DmaLog {
    this.#log ??= this.#find();
    if (this.#log === undefined) throw lost('the driver has none');
    return this.#log;
  }
}

/** There may be one that is not known here: of a process that was killed, or of an earlier user. A driver without one may refuse. */
function stopIfOn(log: DmaLog): void {
  try {
    log.stop();
  } catch {
    // if a log is on and does not stop, the start that follows fails
  }
}

function endOf({ iova, length }: IovaRange): bigint {
  return iova + length;
}

function contains(range: IovaRange, other: IovaRange): boolean {
  return range.iova <= other.iova && endOf(other) <= endOf(range);
}

function overlaps(range: IovaRange, other: IovaRange): boolean {
  return range.iova < endOf(other) && other.iova < endOf(range);
}

function union(range: IovaRange, other: IovaRange): IovaRange {
  const iova = range.iova < other.iova ? range.iova : other.iova;
  const end = endOf(range) > endOf(other) ? endOf(range) : endOf(other);
  return { iova, length: end - iova };
}

function lost(why: string): ShimError {
  return new ShimError('ERR_DEVICE', `DMA log: ${why}`, { errno: 'EIO' });
}
