import { POLLIN } from '../../abi/fcntl.ts';
import { isReadyFd, type Readiness, type ReadyFd } from '../../error.ts';
import { PollSet } from '../../sys/poll.ts';
import { MAX_PARKED } from './journal.ts';
import type { Ledger } from './ledger.ts';

/** After so long a call is tried again, in milliseconds: nobody tells when its device is ready. */
const CLOCK = 1;
/** The same for a call whose device tells. Its caller may have been killed meanwhile, of which nothing tells. */
const LONG_CLOCK = 50;

/** Is due at once, in the place of a time. */
const WOKEN = 0;

/** What the supervisor waits for besides. */
const OTHERS = 3;

interface Waiting {
  readonly place: number;
  readonly readiness: ReadyFd | undefined;
  /** What the call changes, or may change. */
  readonly ledgers: readonly Ledger[];
  /** When it is to be tried again, whatever its descriptor says. */
  due: number;
  /** Its descriptor was said to be ready, and the device was not. */
  readonly goesByClock: boolean;
  /** At the last wait its descriptor was said to be ready. */
  isTold: boolean;
  /** Its descriptor is sure to tell. */
  readonly isSure: boolean;
}

/** Why a call has to wait. */
export interface Reason {
  readonly readiness?: Readiness | undefined;
  /** What it waits for is being done, and its descriptor says so when that has ended, and not before. */
  readonly underWay?: boolean;
}

/** The calls that wait for their device, each in a place of the journal, and the wait for the next thing to do. */
export class Parked {
  readonly #poll = new PollSet(OTHERS + MAX_PARKED);
  readonly #others: number[] = [];
  readonly #waiting: Waiting[] = [];
  readonly #now: () => number;

  /** `now`: a clock in milliseconds. */
  constructor(now = () => performance.now()) {
    this.#now = now;
  }

  get count(): number {
    return this.#waiting.length;
  }

  /** True as long as another call can be parked. */
  get hasRoom(): boolean {
    return this.#waiting.length < MAX_PARKED;
  }

  has(place: number): boolean {
    return this.#waiting.some((waiting) => waiting.place === place);
  }

  /** A place in which no call waits; place 0 is the call that is served. */
  freePlace(): number {
    for (let place = 1; place <= MAX_PARKED; place += 1) if (!this.has(place)) return place;
    throw new RangeError('no place for a call that waits');
  }

  /**
   * A call waits, or waits still, for what its device said; `ledgers` is what it is about. A driver without poll is always called ready by
   * the kernel (`DEFAULT_POLLMASK`), so a call that is not ready when its descriptor is goes by the clock from then on.
   */
  add(place: number, { readiness, underWay = false }: Reason, ledgers: readonly Ledger[]): void {
    const at = this.#waiting.findIndex((waiting) => waiting.place === place);
    const before = underWay ? undefined : this.#waiting[at];
    const polled =
      isReadyFd(readiness) && before?.isTold !== true && before?.goesByClock !== true ? readiness : undefined;
    const waiting: Waiting = {
      place,
      readiness: polled,
      ledgers: [...ledgers],
      due: this.#now() + (polled === undefined ? clockOf(readiness) : LONG_CLOCK),
      goesByClock: isReadyFd(readiness) && polled === undefined,
      isTold: false,
      isSure: underWay && polled !== undefined,
    };
    if (at < 0) this.#waiting.push(waiting);
    else this.#waiting[at] = waiting;
  }

  remove(place: number): void {
    const at = this.#waiting.findIndex((waiting) => waiting.place === place);
    if (at >= 0) this.#waiting.splice(at, 1);
  }

  /** A call was served that changed these, which may have ended what others wait for. */
  wake(changed: readonly Ledger[]): void {
    for (const waiting of this.#waiting)
      if (waiting.ledgers.some((ledger) => changed.includes(ledger))) waiting.due = WOKEN;
  }

  /** Watches `fd` to be read in one of the first places; -1 for none. */
  watch(place: 0 | 1 | 2, fd: number): void {
    this.#others[place] = fd;
  }

  /** Waits until one of the watched descriptors has events, or a call is to be tried again, and not longer than `until`. */
  wait(until = Infinity): void {
    for (let n = 0; n < OTHERS; n += 1)
      this.#poll.set(n, n === 0 && !this.hasRoom ? -1 : (this.#others[n] ?? -1), POLLIN);
    let next = until;
    for (const [n, { readiness, due }] of this.#waiting.entries()) {
      this.#poll.set(OTHERS + n, readiness?.fd ?? -1, readiness?.events ?? 0);
      next = Math.min(next, due);
    }
    const timeout = next === Infinity ? undefined : Math.max(0, next - this.#now());
    this.#poll.wait(OTHERS + this.#waiting.length, timeout);
    for (const [n, waiting] of this.#waiting.entries()) waiting.isTold = this.#poll.events(OTHERS + n) !== 0;
  }

  /** What happened to a watched descriptor at the last wait(). */
  events(place: 0 | 1): number {
    return this.#poll.events(place);
  }

  /**
   * The places of the calls that are to be tried now. Of one whose descriptor is sure to tell, and has not, `isWaited` says whether there is
   * still somebody who waits; it is tried if not.
   */
  due(isWaited: (place: number) => boolean): number[] {
    const now = this.#now();
    return this.#waiting
      .filter((waiting) => {
        const { place, isTold, isSure, due } = waiting;
        if (isTold) return true;
        if (due > now) return false;
        if (!isSure || due === WOKEN || !isWaited(place)) return true;
        waiting.due = now + LONG_CLOCK;
        return false;
      })
      .map(({ place }) => place);
  }
}

/** In how many milliseconds a call is to be tried again that no descriptor tells of. */
function clockOf(readiness: Readiness | undefined): number {
  if (readiness === undefined || isReadyFd(readiness)) return CLOCK;
  const left = readiness.at / 1000 - Number(process.hrtime.bigint()) / 1e6;
  return left <= 0 ? CLOCK : Math.min(left, LONG_CLOCK);
}
