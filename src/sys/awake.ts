import { availableParallelism } from 'node:os';
import { trySyscall } from './libc.ts';
import type { PollSet } from './poll.ts';

/** How long a wait is awake, in milliseconds. */
const AWAKE = 0.2;
/** Waits that were worth while beyond those that were not, at most: so many in vain end it. */
const MOST_WORTH = 8;
/** Where it is not worth while, it is tried once in so many waits. */
const RARELY = 16;

/**
 * Waits awake for what is likely to come at once: to be woken costs more than what is done then, some 50 us where an idle processor halts, as
 * one of a VM does. Who else is to run on this processor does so meanwhile. It ends by itself where the other side is slower than that.
 */
export class AwakeWait {
  readonly #isAlone: boolean;
  #worth = MOST_WORTH / 2;
  #passed = 0;

  /** `processors`: how many this process may use. With one, what is waited for needs that. */
  constructor(processors: number = availableParallelism()) {
    this.#isAlone = processors === 1;
  }

  /** Waits a moment for the first `count` places of a set. Returns false if none has events, or if it is not worth while. */
  wait(set: Pick<PollSet, 'wait'>, count: number): boolean {
    if (!this.#isWorthWhile()) return false;
    const end = performance.now() + AWAKE;
    do {
      if (set.wait(count, 0)) {
        this.#worth = Math.min(MOST_WORTH, this.#worth + 1);
        return true;
      }
      trySyscall('sched_yield');
    } while (performance.now() < end);
    this.#worth = Math.max(0, this.#worth - 1);
    return false;
  }

  #isWorthWhile(): boolean {
    if (this.#isAlone) return false;
    if (this.#worth > 0) return true;
    this.#passed = (this.#passed + 1) % RARELY;
    return this.#passed === 0;
  }
}
