import { BILLION, digitsOf, LEAST, MOST_DIGITS, replaceDigits, ZERO, type TextBytes } from './text-bytes.ts';

/**
 * A text with gaps for numbers that is wanted again and again with others in them. Most of their digits stay the same, those of times too:
 * it keeps what it was, and replaces the digits that differ.
 */
export class GappedText {
  /** The text, and behind it room for longer numbers. */
  readonly #bytes: Uint8Array;
  #text: Uint8Array;
  /** Where its gaps end, and how many digits are in them. */
  readonly #ends: Int32Array;
  readonly #digits: Int32Array;
  /** The numbers that are in them, as billions and what is left. */
  readonly #high: Int32Array;
  readonly #low: Int32Array;

  /** `pieces`: what is before, between and behind the gaps, which have a 0 at first. */
  constructor(pieces: readonly Uint8Array[]) {
    const gaps = pieces.length - 1;
    this.#ends = new Int32Array(gaps);
    this.#digits = new Int32Array(gaps).fill(1);
    this.#high = new Int32Array(gaps);
    this.#low = new Int32Array(gaps);
    this.#bytes = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, gaps * MOST_DIGITS));
    let length = 0;
    for (const [n, piece] of pieces.entries()) {
      this.#bytes.set(piece, length);
      length += piece.length;
      if (n === gaps) break;
      this.#bytes[length] = ZERO;
      length += 1;
      this.#ends[n] = length;
    }
    this.#text = this.#bytes.subarray(0, length);
  }

  get gaps(): number {
    return this.#ends.length;
  }

  /** Puts a number in a gap: a whole one from 0 to 2^53-1. */
  set(gap: number, value: number): void {
    const digits = this.#digits[gap] ?? 0;
    if (value < (LEAST[digits] ?? 0) || value >= (LEAST[digits + 1] ?? 0)) this.#resize(gap, digitsOf(value) - digits);
    const high = Math.floor(value / BILLION);
    const low = value - high * BILLION;
    const end = this.#ends[gap] ?? 0;
    replaceDigits(this.#bytes, end, this.#low[gap] ?? 0, low);
    replaceDigits(this.#bytes, end - 9, this.#high[gap] ?? 0, high);
    this.#high[gap] = high;
    this.#low[gap] = low;
  }

  /** So many more digits, or fewer, all of them zeros. */
  #resize(gap: number, more: number): void {
    const end = this.#ends[gap] ?? 0;
    this.#bytes.copyWithin(end + more, end, this.#text.length);
    this.#text = this.#bytes.subarray(0, this.#text.length + more);
    for (let n = gap; n < this.#ends.length; n += 1) this.#ends[n] = (this.#ends[n] ?? 0) + more;
    const digits = (this.#digits[gap] ?? 0) + more;
    this.#digits[gap] = digits;
    this.#bytes.fill(ZERO, end + more - digits, end + more);
    this.#high[gap] = 0;
    this.#low[gap] = 0;
  }

  addTo(text: TextBytes): void {
    text.add(this.#text);
  }
}
