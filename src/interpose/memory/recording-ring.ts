import type { LineWriter } from '../../recording/line-writer.ts';
import { pieceText, type Piece } from '../../recording/pieces.ts';

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
 * How a part of a line begins, in units of 16 bits: a piece is one unit, with its index; a number is followed by so many units, the lowest
 * first; a text by so many UTF-16 code units.
 */
const PIECE = 0x8000;
const TEXT = 0x4000;
const NUMBER = 0x2000;
/** Of one part. */
const MOST = 0x1fff;
const UNIT = 2 ** 16;
/** Of one that is larger than a unit. */
const UNITS_OF_A_NUMBER = 4;

/** The longest piece has less. */
const BYTES_OF_A_UNIT = 32;

/** Bytes, one behind the other. */
class ByteBuilder {
  readonly #bytes: Buffer;
  #length = 0;

  constructor(capacity: number) {
    this.#bytes = Buffer.allocUnsafe(capacity);
  }

  byte(byte: number): void {
    this.#bytes[this.#length] = byte;
    this.#length += 1;
  }

  ascii(text: string): void {
    for (let n = 0; n < text.length; n += 1) this.byte(text.charCodeAt(n));
  }

  text(text: string): void {
    this.#length += this.#bytes.write(text, this.#length);
  }

  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }
}

/**
 * The lines of a recording on their way from a supervisor to the keeper, which makes text of them and writes them down: a queue in shared
 * memory. So an access costs no system call and little time, a slow disk holds up no VM, and a supervisor that is killed takes no line
 * with it. A line counts when it is complete.
 */
export class RecordingRing implements LineWriter {
  readonly #words: Int32Array;
  readonly #data: Float64Array;
  readonly #units: Uint16Array;
  readonly #mask: number;
  /** Units of the line that is not complete: so many, and how many there was room for when that was looked at last. */
  #length = 0;
  #room = 0;

  /** `memory` begins at a multiple of 8; what is behind its header is a power of two. */
  constructor(memory: Uint8Array) {
    this.#words = new Int32Array(memory.buffer, memory.byteOffset, HEADER / 4);
    this.#data = new Float64Array(memory.buffer, memory.byteOffset + DATA_AT, 1);
    this.#units = new Uint16Array(memory.buffer, memory.byteOffset + HEADER, (memory.length - HEADER) / 2);
    this.#mask = this.#units.length - 1;
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

  piece({ index }: Piece): void {
    const at = this.#reserve(1);
    if (at >= 0) this.#units[at & this.#mask] = PIECE + index;
  }

  number(value: number): void {
    const count = value < UNIT ? 1 : UNITS_OF_A_NUMBER;
    const at = this.#reserve(1 + count);
    if (at < 0) return;
    this.#units[at & this.#mask] = NUMBER + count;
    let rest = value;
    for (let n = 1; n <= count; n += 1) {
      const high = Math.floor(rest / UNIT);
      this.#units[(at + n) & this.#mask] = rest - high * UNIT;
      rest = high;
    }
  }

  text(text: string): void {
    for (let from = 0; from < text.length; from += MOST) {
      const count = Math.min(MOST, text.length - from);
      const at = this.#reserve(1 + count);
      if (at < 0) continue;
      const units = this.#units;
      const mask = this.#mask;
      units[at & mask] = TEXT + count;
      for (let n = 0; n < count; n += 1) units[(at + 1 + n) & mask] = text.charCodeAt(from + n);
    }
  }

  /** Where the next units of the line go; less than 0 if it becomes longer than there is room for. */
  #reserve(count: number): number {
    const from = this.#length;
    this.#length += count;
    if (this.#length > this.#room) {
      this.#room = this.#units.length - this.#waiting;
      if (this.#length > this.#room) return -1;
    }
    return (this.#head & this.#mask) + from;
  }

  /** Where the first unit of the line that is not complete goes: nobody else writes. */
  get #head(): number {
    return this.#words[HEAD] ?? 0;
  }

  get #waiting(): number {
    return (this.#head - Atomics.load(this.#words, TAIL)) >>> 0;
  }

  /** There is to be no such line. */
  discard(): void {
    this.#length = 0;
    this.#room = 0;
  }

  /** Puts the line behind the others; false if there was no room for it. Another one begins. */
  commit(): boolean {
    const fits = this.#length <= this.#room;
    if (fits) Atomics.store(this.#words, HEAD, (this.#head + this.#length) | 0); // last: now it counts
    this.discard();
    return fits;
  }

  /** All lines that there are, which are there no more, in UTF-8. */
  take(): Uint8Array {
    const head = Atomics.load(this.#words, HEAD);
    const tail = Atomics.load(this.#words, TAIL);
    const length = (head - tail) >>> 0;
    const lines = new ByteBuilder(length * BYTES_OF_A_UNIT);
    for (let n = 0; n < length;) {
      const unit = this.#unit(tail + n);
      const behind = tail + n + 1;
      n += 1;
      if (unit >= PIECE) {
        lines.ascii(pieceText(unit - PIECE));
        continue;
      }
      const count = unit & MOST;
      n += count;
      if (unit < TEXT) lines.ascii(String(this.#numberAt(behind, count)));
      else if (this.#isAscii(behind, count)) for (let at = 0; at < count; at += 1) lines.byte(this.#unit(behind + at));
      else lines.text(this.#textAt(behind, count));
    }
    Atomics.store(this.#words, TAIL, head);
    return lines.bytes;
  }

  #unit(at: number): number {
    return this.#units[at & this.#mask] ?? 0;
  }

  #isAscii(at: number, length: number): boolean {
    let all = 0;
    for (let n = 0; n < length; n += 1) all |= this.#unit(at + n);
    return all < 0x80;
  }

  #textAt(at: number, length: number): string {
    return String.fromCharCode(...Array.from({ length }, (_, n) => this.#unit(at + n)));
  }

  #numberAt(at: number, length: number): number {
    let value = 0;
    for (let n = length - 1; n >= 0; n -= 1) value = value * UNIT + this.#unit(at + n);
    return value;
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
