/** Bytes of the lines that a supervisor may be ahead of its keeper: some 15,000 accesses. */
const CAPACITY = 4 * 2 ** 20;
const HEADER = 64;
export const RECORDING_RING_SIZE = HEADER + CAPACITY;

/** Words of the header; the data's length is a float64 behind them. */
const [HEAD, TAIL, ASLEEP, CLOSED] = [0, 1, 2, 3];
const DATA_AT = 16;

/** Why nothing more is taken: whoever writes the lines down has had enough, or some were lost. */
export const RING = { open: 0, full: 1, lost: 2 } as const;
export type RingState = (typeof RING)[keyof typeof RING];

/**
 * The lines of a recording on their way from a supervisor to the keeper, which writes them down: a queue in shared memory. So an access
 * costs no system call, a slow disk holds up no VM, and a supervisor that is killed takes no line with it. A line counts when it is complete.
 */
export class RecordingRing {
  readonly #words: Int32Array;
  readonly #data: Float64Array;
  readonly #bytes: Uint8Array;
  #scratch = Buffer.alloc(65_536);

  /** `memory` begins at a multiple of 8; what is behind its header is a power of two. */
  constructor(memory: Uint8Array) {
    this.#words = new Int32Array(memory.buffer, memory.byteOffset, HEADER / 4);
    this.#data = new Float64Array(memory.buffer, memory.byteOffset + DATA_AT, 1);
    this.#bytes = memory.subarray(HEADER);
  }

  get state(): RingState {
    return Atomics.load(this.#words, CLOSED) as RingState;
  }

  close(why: Exclude<RingState, 0>): void {
    Atomics.compareExchange(this.#words, CLOSED, RING.open, why);
  }

  /** Bytes of data that have been written beside the lines. */
  get dataLength(): number {
    return this.#data[0] ?? 0;
  }

  set dataLength(bytes: number) {
    this.#data[0] = bytes;
  }

  /** Puts a line behind the others; false if there is no room for it. */
  append(line: string): boolean {
    const bytes = this.#encoded(line);
    const head = Atomics.load(this.#words, HEAD);
    const capacity = this.#bytes.length;
    if (bytes.length > capacity - ((head - Atomics.load(this.#words, TAIL)) >>> 0)) return false;
    const at = (head >>> 0) % capacity;
    const first = Math.min(bytes.length, capacity - at);
    this.#bytes.set(first === bytes.length ? bytes : bytes.subarray(0, first), at);
    if (first < bytes.length) this.#bytes.set(bytes.subarray(first), 0);
    Atomics.store(this.#words, HEAD, (head + bytes.length) | 0); // last: now it counts
    return true;
  }

  /** In memory that is used again. */
  #encoded(line: string): Uint8Array {
    const MOST_OF_A_CHARACTER = 3;
    if (line.length * MOST_OF_A_CHARACTER > this.#scratch.length) return Buffer.from(line);
    return this.#scratch.subarray(0, this.#scratch.write(line));
  }

  /** All lines that there are, which are there no more. */
  take(): Uint8Array {
    const head = Atomics.load(this.#words, HEAD);
    const tail = Atomics.load(this.#words, TAIL);
    const length = (head - tail) >>> 0;
    const at = (tail >>> 0) % this.#bytes.length;
    const first = this.#bytes.subarray(at, at + length);
    const lines = Buffer.concat([first, this.#bytes.subarray(0, length - first.length)]);
    Atomics.store(this.#words, TAIL, head);
    return lines;
  }

  get isEmpty(): boolean {
    return Atomics.load(this.#words, HEAD) === Atomics.load(this.#words, TAIL);
  }

  /** Whoever takes the lines waits to be woken from now on. */
  sleep(): void {
    Atomics.store(this.#words, ASLEEP, 1);
  }

  /** True, once, if somebody has to be woken. */
  wakes(): boolean {
    return Atomics.load(this.#words, ASLEEP) === 1 && Atomics.exchange(this.#words, ASLEEP, 0) === 1;
  }
}
