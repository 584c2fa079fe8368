const [ZERO, NEWLINE] = [0x30, 0x0a];
/** A number below has up to nine digits, and is one that processors divide fast. */
const BILLION = 1_000_000_000;

/** Text that is put together as bytes: by parts, of which strings would be made in several times as long. */
export class TextBytes {
  #bytes: Uint8Array;
  #length = 0;

  /** `expected`: about how many bytes it will have. */
  constructor(expected: number) {
    this.#bytes = Buffer.allocUnsafe(expected + 4096);
  }

  get length(): number {
    return this.#length;
  }

  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  get endsLine(): boolean {
    return this.#bytes[this.#length - 1] === NEWLINE;
  }

  add(part: Uint8Array): void {
    this.#ensure(part.length);
    this.#bytes.set(part, this.#length);
    this.#length += part.length;
  }

  /** In decimal: a whole number from 0 to 2^53-1. */
  number(value: number): void {
    this.#ensure(16);
    const high = Math.floor(value / BILLION);
    if (high === 0) this.#digits(value, digitsOf(value));
    else {
      this.#digits(high, digitsOf(high));
      this.#digits(value - high * BILLION, 9);
    }
  }

  #digits(value: number, count: number): void {
    let left = value | 0;
    for (let at = this.#length + count - 1; at >= this.#length; at -= 1) {
      const rest = (left / 10) | 0;
      this.#bytes[at] = ZERO + left - rest * 10;
      left = rest;
    }
    this.#length += count;
  }

  #ensure(more: number): void {
    if (this.#length + more <= this.#bytes.length) return;
    const grown = Buffer.allocUnsafe(2 * (this.#length + more));
    grown.set(this.bytes);
    this.#bytes = grown;
  }
}

function digitsOf(value: number): number {
  let count = 1;
  for (let bound = 10; value >= bound; bound *= 10) count += 1;
  return count;
}
