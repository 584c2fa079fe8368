import { pollfd } from '../abi/fcntl.ts';
import { addressOf, trySyscall } from './libc.ts';

/** A set of descriptors to wait for. SAFETY: it references the memory of its addresses, and whoever waits references it. */
export class PollSet {
  readonly #bytes: Uint8Array;
  readonly #at: number;
  readonly #entries: ReturnType<typeof pollfd.view>[];
  readonly #timeout = new BigInt64Array(2);
  readonly #timeoutAt = addressOf(this.#timeout);

  constructor(capacity: number) {
    this.#bytes = new Uint8Array(capacity * pollfd.size);
    this.#at = addressOf(this.#bytes);
    this.#entries = Array.from({ length: capacity }, (_, n) => pollfd.view(this.#bytes, n * pollfd.size));
  }

  /** Watches `fd` for `events` in a place; a negative fd watches nothing. */
  set(place: number, fd: number, events: number): void {
    const entry = this.#entries[place];
    if (entry === undefined) throw new RangeError(`PollSet: no place ${place}`);
    entry.fd = fd;
    entry.events = events;
    entry.revents = 0;
  }

  /** What happened in a place at the last wait(). */
  events(place: number): number {
    return this.#entries[place]?.revents ?? 0;
  }

  /** Waits for the first `count` places, at most `milliseconds` (for ever without). Returns false if none has events. */
  wait(count: number, milliseconds?: number): boolean {
    if (milliseconds !== undefined) {
      this.#timeout[0] = BigInt(Math.floor(milliseconds / 1000));
      this.#timeout[1] = BigInt(Math.floor((milliseconds % 1000) * 1e6));
    }
    return trySyscall('ppoll', this.#at, count, milliseconds === undefined ? 0 : this.#timeoutAt, 0, 0) > 0;
  }
}
