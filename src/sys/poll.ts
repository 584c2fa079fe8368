import { pollfd } from '../abi/fcntl.ts';
import { addressOf, trySyscall } from './libc.ts';

/** A set of descriptors to wait for. SAFETY: it references the memory of its addresses, and whoever waits references it. */
export class PollSet {
  readonly #at: number;
  /** `struct pollfd` of each place: the descriptor as a word, and behind it, as half words, events and revents. */
  readonly #fds: Int32Array;
  readonly #events: Uint16Array;
  /** `struct __kernel_timespec`, as 32-bit words: less than 2^31 seconds. */
  readonly #timeout = new Int32Array(4);
  readonly #timeoutAt = addressOf(this.#timeout);

  constructor(capacity: number) {
    this.#fds = new Int32Array((capacity * pollfd.size) / 4);
    this.#events = new Uint16Array(this.#fds.buffer);
    this.#at = addressOf(this.#fds);
  }

  /** Watches `fd` for `events` in a place; a negative fd watches nothing. */
  set(place: number, fd: number, events: number): void {
    if (2 * place >= this.#fds.length) throw new RangeError(`PollSet: no place ${place}`);
    this.#fds[2 * place] = fd;
    this.#events[4 * place + 2] = events;
    this.#events[4 * place + 3] = 0;
  }

  /** What happened in a place at the last wait(). */
  events(place: number): number {
    return this.#events[4 * place + 3] ?? 0;
  }

  /** Waits for the first `count` places, at most `milliseconds` (for ever without). Returns false if none has events. */
  wait(count: number, milliseconds?: number): boolean {
    if (milliseconds !== undefined) {
      const left = Math.max(0, milliseconds);
      this.#timeout[0] = Math.min(Math.floor(left / 1000), 2 ** 31 - 1);
      this.#timeout[2] = Math.floor((left % 1000) * 1e6);
    }
    return trySyscall('ppoll', this.#at, count, milliseconds === undefined ? 0 : this.#timeoutAt, 0, 0) > 0;
  }
}
