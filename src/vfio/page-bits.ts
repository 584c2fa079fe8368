import type { PageRange } from './page-ranges.ts';

/**
 * A bit for each page of a range, as VFIO's bitmaps have it: bit n of little-endian u64s is the n-th page. Whole u64s, so it can be
 * looked at by 32 bits, which is what JavaScript's numbers do at once.
 */
export class PageBits {
  readonly range: PageRange;
  readonly bytes: Uint8Array;
  readonly #words: Uint32Array;

  /** `room` is longer than the bitmap, if it is given; memory that begins at a multiple of four. */
  constructor(range: PageRange, room?: Uint8Array) {
    const size = PageBits.sizeOf(range);
    this.range = range;
    this.bytes = room === undefined ? new Uint8Array(size) : room.subarray(0, size);
    this.#words = new Uint32Array(this.bytes.buffer, this.bytes.byteOffset, size / 4);
  }

  /** Bytes of the bitmap of a range. */
  static sizeOf({ first, end }: PageRange): number {
    return Math.ceil((end - first) / 64) * 8;
  }

  clear(): void {
    this.bytes.fill(0);
  }

  /** Leaves of the bits of `pages`, which both have, only those that are set in `other` too. */
  and(other: PageBits, pages: PageRange): void {
    const words = this.#words;
    const others = other.#words;
    const from = pages.first - this.range.first;
    const to = pages.end - this.range.first;
    const shift = this.range.first - other.range.first;
    const first = Math.floor(from / WORD);
    const last = Math.floor((to - 1) / WORD);
    for (const n of first === last ? [first] : [first, last]) {
      const word = words[n] ?? 0;
      words[n] = word & (wordAt(others, n * WORD + shift) | ~maskOf(from - n * WORD, to - n * WORD));
    }
    this.#andWords(other, first + 1, last, shift);
  }

  /** The same of whole words, of which the other's begin `shift` bits further on. */
  #andWords(other: PageBits, first: number, end: number, shift: number): void {
    if (shift % 8 !== 0) {
      andShifted(this.#words, other.#words, first, end, shift);
      return;
    }
    // a container often has all bits of a piece set, and then nothing is to be merged
    for (let n = first; n < end; n += PIECE) {
      const piece = Math.min(PIECE, end - n);
      const mine = this.bytes.subarray(n * BYTES, (n + piece) * BYTES);
      const begin = n * BYTES + shift / 8;
      if (Buffer.compare(mine, ones.subarray(0, mine.length)) === 0)
        mine.set(other.bytes.subarray(begin, begin + mine.length));
      else andShifted(this.#words, other.#words, n, n + piece, shift);
    }
  }

  /** The pages, of those, whose bits are set. */
  *setIn(pages: PageRange): Generator<PageRange> {
    const base = this.range.first;
    let since = -1;
    for (let at = pages.first - base; at < pages.end - base;) {
      const word = this.#words[Math.floor(at / WORD)] ?? 0;
      const bit = at % WORD;
      const isWhole = bit === 0 && at + WORD <= pages.end - base && (word === 0 || word === -1 >>> 0);
      const isSet = isWhole ? word !== 0 : ((word >>> bit) & 1) !== 0;
      if (isSet && since < 0) since = at;
      if (!isSet && since >= 0) {
        yield { first: base + since, end: base + at };
        since = -1;
      }
      at += isWhole ? WORD : 1;
    }
    if (since >= 0) yield { first: base + since, end: pages.end };
  }
}

/** Memory for a bitmap at a time, used again and again. */
export class PageBitsRoom {
  #room = new Uint8Array(0);

  /** The bitmap of a range, with whatever is left there of the last one, which is not to be used any more. */
  bitsOf(range: PageRange): PageBits {
    const size = PageBits.sizeOf(range);
    if (this.#room.length < size) this.#room = new Uint8Array(size);
    return new PageBits(range, this.#room);
  }
}

const WORD = 32;
const BYTES = WORD / 8;
/** Words that are merged at once: 64 KiB. */
const PIECE = 16_384;
const ones = new Uint8Array(PIECE * BYTES).fill(255);

/** Leaves in words, from one to before another, the bits that others have `shift` bits further on. */
function andShifted(words: Uint32Array, others: Uint32Array, first: number, end: number, shift: number): void {
  const place = Math.floor(shift / WORD);
  const right = shift - place * WORD;
  const left = WORD - right;
  let low = others[first + place] ?? 0;
  for (let n = first; n < end; n += 1) {
    const high = others[n + place + 1] ?? 0;
    words[n] = (words[n] ?? 0) & (right === 0 ? low : (low >>> right) | (high << left));
    low = high;
  }
}

/** The 32 bits that begin at bit `at`, which may lie before the words or behind them. */
function wordAt(words: Uint32Array, at: number): number {
  const place = Math.floor(at / WORD);
  const right = at - place * WORD;
  const low = (words[place] ?? 0) >>> right;
  return right === 0 ? low : low | ((words[place + 1] ?? 0) << (WORD - right));
}

/** A word whose bits are set from one to before another, as far as it has them. */
function maskOf(from: number, to: number): number {
  const above = from <= 0 ? -1 : from >= WORD ? 0 : -1 << from;
  const below = to >= WORD ? -1 : to <= 0 ? 0 : ~(-1 << to);
  return above & below;
}
