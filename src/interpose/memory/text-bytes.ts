export const ZERO = 0x30;
const NEWLINE = 0x0a;
/** A number below has up to nine digits, and is one that processors divide fast. */
export const BILLION = 1_000_000_000;
/** Digits that a number has at most. */
export const MOST_DIGITS = 16;
/** The least numbers with so many digits. */
export const LEAST: readonly number[] = Array.from({ length: MOST_DIGITS + 2 }, (_, digits) =>
  digits < 2 ? 0 : 10 ** (digits - 1),
);

/** Text that is put together as bytes: by parts, of which strings would be made in several times as long. */
export class TextBytes {
  #bytes: Uint8Array;
  #length = 0;

  /** `expected`: about how many bytes it will have. */
  constructor(expected: number) {
    this.#bytes = Buffer.allocUnsafe(expected);
  }

  get length(): number {
    return this.#length;
  }

  /** They stay as they are until the text is cleared. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  get endsLine(): boolean {
    return this.#bytes[this.#length - 1] === NEWLINE;
  }

  /** Another text is put together, in the same memory. */
  clear(): void {
    this.#length = 0;
  }

  add(part: Uint8Array): void {
    this.#ensure(part.length);
    this.#bytes.set(part, this.#length);
    this.#length += part.length;
  }

  /** In decimal: a whole number from 0 to 2^53-1. */
  number(value: number): void {
    this.#ensure(MOST_DIGITS);
    const high = Math.floor(value / BILLION);
    const low = value - high * BILLION;
    if (high > 0) this.#digits(high, digitsOf(high));
    this.#digits(low, high > 0 ? 9 : digitsOf(low));
  }

  #digits(value: number, count: number): void {
    this.#bytes.fill(ZERO, this.#length, this.#length + count);
    this.#length += count;
    replaceDigits(this.#bytes, this.#length, 0, value);
  }

  #ensure(more: number): void {
    if (this.#length + more <= this.#bytes.length) return;
    const grown = Buffer.allocUnsafe(2 * (this.#length + more));
    grown.set(this.bytes);
    this.#bytes = grown;
  }
}

/** Makes the digits of one number below a billion, which end there, those of another that has as many. */
export function replaceDigits(bytes: Uint8Array, end: number, from: number, to: number): void {
  let [was, left] = [from | 0, to | 0];
  for (let at = end - 1; was !== left; at -= 1) {
    const rest = (left / 10) | 0;
    bytes[at] = ZERO + left - rest * 10;
    left = rest;
    was = (was / 10) | 0;
  }
}

/** Of a whole number from 0 to 2^53-1. */
export function digitsOf(value: number): number {
  let count = 1;
  while (value >= (LEAST[count + 1] ?? 0)) count += 1;
  return count;
}
