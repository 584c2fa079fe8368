import { GAP, type LineWriter, type Word } from '../../recording/line-writer.ts';
import { GappedText } from './gapped-text.ts';
import { TextBytes } from './text-bytes.ts';

/** Bytes of the lines that a supervisor may be ahead of its keeper: some 500,000 accesses. Memory that no line has come to is none. */
const CAPACITY = 8 * 2 ** 20;
export const RING_HEADER = 64;
export const RECORDING_RING_SIZE = RING_HEADER + CAPACITY;

/** Words of the header; the data's length is a float64 behind them. */
const [HEAD, TAIL, KEEPER, CLOSED] = [0, 1, 2, 3];
/** Whether whoever takes the lines is to be woken. */
const [AWAKE, ASLEEP, DOZES] = [0, 1, 2];
const DATA_AT = 16;

/** Why nothing more is taken: whoever writes the lines down has had enough, or some were lost. */
export const RING = { open: 0, full: 1, lost: 2 } as const;
export type RingState = (typeof RING)[keyof typeof RING];

/**
 * Lines are varints, 7 bits a byte and the lowest first, whose two lowest bits say what the others are: a number of a line, or how far it is
 * from the last one that was large, as times are; a word, by its number; or something else.
 */
const TAG = { number: 0, distance: 1, word: 2, other: 3 } as const;
/**
 * Of something else, the next two lowest bits: the UTF-16 units of a text are behind it, so many; behind a word's number the text of the
 * word; or a writer has begun, who knows of no number.
 */
const OTHER = { text: 0, named: 1, begins: 2 } as const;
const MOST_BYTES = 8;
/** A number from here on is large. One that is no further from the one before is told as a distance. */
const LARGE = 2 ** 24;
const FAR = 2 ** 26;
/** So many words have numbers at a time: all that were ever seen would fill the memory of both sides. */
const MOST_WORDS = 4096;

/** So many bytes of lines are taken at a time: a file system takes large pieces at less cost. */
const PIECE_OF_TEXT = 2 ** 18;

/**
 * The lines of a recording on their way from a supervisor to the keeper, which makes text of them and writes them down: a queue in shared
 * memory. So an access costs no system call and little time, a slow disk holds up no VM, and a supervisor that is killed takes no line
 * with it. A line counts when it is complete.
 */
export class RecordingRing implements LineWriter {
  readonly #words: Int32Array;
  readonly #data: Float64Array;
  readonly #bytes: Uint8Array;
  readonly #mask: number;
  /** The next byte that is written, or taken; where the line that is not complete begins. */
  #at: number;
  #begun: number;
  /** The last number that was large, and what it was when the line began that is not complete. */
  #large = 0;
  #largeBefore = 0;
  /** Nothing of this writer's is in the ring. */
  #isNew = true;
  /** Up to there is room, as far as was looked; whether there was for all of the line. */
  #end: number;
  #hasRoom = true;
  readonly #quarter: number;
  #mayBeFilling = true;
  /** Whose numbers words have, how many have one, and which got theirs in the line that is not complete. */
  #numbers: object = {};
  #numbered = 0;
  readonly #named: Word[] = [];
  /** For whoever takes the lines: the words by their numbers, and the text. */
  readonly #texts: GappedText[] = [];
  readonly #taken = new TextBytes(0);

  /** `memory` begins at a multiple of 8; what is behind its header is a power of two. */
  constructor(memory: Uint8Array) {
    this.#words = new Int32Array(memory.buffer, memory.byteOffset, RING_HEADER / 4);
    this.#data = new Float64Array(memory.buffer, memory.byteOffset + DATA_AT, 1);
    this.#bytes = memory.subarray(RING_HEADER);
    this.#mask = this.#bytes.length - 1;
    this.#quarter = this.#bytes.length / 4;
    this.#at = Atomics.load(this.#words, HEAD) >>> 0;
    this.#begun = this.#at;
    this.#end = this.#at;
  }

  get state(): RingState {
    return Atomics.load(this.#words, CLOSED) as RingState;
  }

  /** As of now, or of a moment ago, for whoever writes lines: one that is written in vain does no harm. */
  get isOpen(): boolean {
    return this.#words[CLOSED] === RING.open;
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

  /** Bytes of lines that were not taken. */
  get used(): number {
    return (Atomics.load(this.#words, HEAD) - Atomics.load(this.#words, TAIL)) >>> 0;
  }

  /** The numbers of its gaps are to be written next. */
  word(word: Word): void {
    if (word.numberedBy !== this.#numbers) this.#name(word);
    this.#put(word.number * 4 + TAG.word);
  }

  number(value: number): void {
    if (value < LARGE) {
      this.#put(value * 4 + TAG.number);
      return;
    }
    const distance = value - this.#large;
    this.#large = value;
    if (distance >= 0 && distance < FAR) this.#put(distance * 8 + TAG.distance);
    else if (distance < 0 && distance > -FAR) this.#put(-distance * 8 - 4 + TAG.distance);
    else this.#put(value * 4 + TAG.number);
  }

  text(text: string): void {
    this.#put(otherOf(OTHER.text, text.length));
    this.#putUnits(text);
  }

  #name(word: Word): void {
    word.numberedBy = this.#numbers;
    word.number = this.#numbered;
    this.#numbered += 1;
    this.#named.push(word);
    this.#put(otherOf(OTHER.named, word.text.length));
    this.#put(word.number);
    this.#putUnits(word.text);
  }

  /** A varint: a whole number from 0 to 2^55, if it is one of those that have a float64. */
  #put(value: number): void {
    if (this.#at + MOST_BYTES > this.#end && !this.#findRoom(MOST_BYTES)) return;
    const [bytes, mask] = [this.#bytes, this.#mask];
    let at = this.#at;
    let large = value;
    for (; large >= 2 ** 28; at += 1) {
      bytes[at & mask] = (large & 0x7f) | 0x80;
      large = Math.floor(large / 128);
    }
    let left = large | 0; // integers from here on, which take less time
    for (; left > 0x7f; at += 1) {
      bytes[at & mask] = (left & 0x7f) | 0x80;
      left >>= 7;
    }
    bytes[at & mask] = left;
    this.#at = at + 1;
  }

  #putUnits(text: string): void {
    const length = 2 * text.length;
    if (this.#at + length > this.#end && !this.#findRoom(length)) return;
    let at = this.#at;
    for (let n = 0; n < text.length; n += 1) {
      const unit = text.charCodeAt(n);
      this.#bytes[at & this.#mask] = unit;
      this.#bytes[(at + 1) & this.#mask] = unit >> 8;
      at += 2;
    }
    this.#at = at;
  }

  /** Looks what was taken meanwhile: before the first line, and at least once in a quarter of the ring. */
  #findRoom(bytes: number): boolean {
    const room = this.#bytes.length - this.used - (this.#at - this.#begun);
    this.#end = this.#at + Math.min(room, Math.max(bytes + 1, this.#quarter));
    this.#mayBeFilling = true;
    if (room < bytes + 1) this.#hasRoom = false;
    else if (this.#isNew && this.#at === this.#begun) {
      this.#bytes[this.#at & this.#mask] = otherOf(OTHER.begins, 0);
      this.#at += 1;
    }
    return this.#hasRoom;
  }

  /** There is to be no such line. */
  discard(): void {
    for (const word of this.#named) word.numberedBy = undefined; // nobody was told
    this.#large = this.#largeBefore;
    this.#end = this.#begun;
    this.#begin(this.#begun);
  }

  /** Puts the line behind the others; false if there was no room for it. Another one begins. */
  commit(): boolean {
    if (!this.#hasRoom) {
      this.discard();
      return false;
    }
    Atomics.store(this.#words, HEAD, this.#at | 0); // last: now it counts
    this.#isNew = false;
    this.#largeBefore = this.#large;
    this.#begin(this.#at >>> 0);
    return true;
  }

  #begin(at: number): void {
    if (at < this.#begun) this.#end = at; // it went past 2^32, and is looked where that is
    this.#at = at;
    this.#begun = at;
    this.#hasRoom = true;
    if (this.#named.length > 0) this.#named.length = 0;
    if (this.#numbered < MOST_WORDS) return;
    this.#numbers = {};
    this.#numbered = 0;
  }

  get isEmpty(): boolean {
    return this.used === 0;
  }

  /**
   * The lines that come first, which are there no more, in UTF-8: some 256 KiB if each ends with a newline and none has another. They stay
   * as they are until more are taken. Always by the same object: it knows the words.
   */
  take(): Uint8Array {
    const begin = Atomics.load(this.#words, TAIL) >>> 0;
    const end = begin + this.used;
    const text = this.#taken;
    text.clear();
    this.#at = begin;
    while (this.#at < end) {
      this.#takePart(text);
      if (text.length >= PIECE_OF_TEXT && text.endsLine) break;
    }
    Atomics.store(this.#words, TAIL, this.#at | 0);
    return text.bytes;
  }

  /** Nobody takes the lines that were written so far. */
  forget(): void {
    Atomics.store(this.#words, TAIL, this.#begun | 0);
  }

  #takePart(to: TextBytes): void {
    const part = this.#takeVarint();
    const tag = part & 3;
    if (tag === TAG.word) this.#takeWord((part - tag) / 4, to);
    else if (tag === TAG.other) this.#takeOther((part - tag) / 4, to);
    else to.number(this.#numberIn(part));
  }

  /** A word, with the numbers behind it in its gaps. */
  #takeWord(number: number, to: TextBytes): void {
    const text = this.#texts[number];
    if (text === undefined) throw new RangeError(`no word ${number} has come before`);
    for (let gap = 0; gap < text.gaps; gap += 1) text.set(gap, this.#numberIn(this.#takeVarint()));
    text.addTo(to);
  }

  #takeOther(part: number, to: TextBytes): void {
    const count = Math.floor(part / 4);
    switch (part & 3) {
      case OTHER.named: {
        const number = this.#takeVarint(); // the word itself comes behind
        const pieces = this.#takeUnits(count).split(GAP);
        this.#texts[number] = new GappedText(pieces.map((piece) => Buffer.from(piece)));
        return;
      }
      case OTHER.begins:
        this.#large = 0;
        return;
      default:
        to.add(Buffer.from(this.#takeUnits(count)));
    }
  }

  #numberIn(part: number): number {
    if ((part & 3) === TAG.number && part < 4 * LARGE) return part / 4;
    if ((part & 3) === TAG.number) this.#large = part / 4;
    else if ((part & 4) === 0) this.#large += (part - TAG.distance) / 8;
    else this.#large -= (part - TAG.distance + 4) / 8;
    return this.#large;
  }

  #takeUnits(count: number): string {
    const units = new Uint16Array(count);
    for (let n = 0; n < count; n += 1) units[n] = this.#takeByte() + this.#takeByte() * 256;
    return Buffer.from(units.buffer).toString('utf16le');
  }

  #takeVarint(): number {
    let byte = this.#takeByte();
    if (byte < 0x80) return byte;
    let value = byte & 0x7f;
    for (let scale = 2 ** 7; byte >= 0x80 && scale < 2 ** 63; scale *= 128) {
      byte = this.#takeByte();
      value += (byte & 0x7f) * scale;
    }
    return value;
  }

  #takeByte(): number {
    const byte = this.#bytes[this.#at & this.#mask] ?? 0;
    this.#at += 1;
    return byte;
  }

  /** Whoever takes the lines waits to be woken from now on, by the first line; or, if it dozes, once a quarter of the ring is lines. */
  sleep(): void {
    Atomics.store(this.#words, KEEPER, ASLEEP);
  }

  doze(): void {
    Atomics.store(this.#words, KEEPER, DOZES);
  }

  /** True, once, if somebody has to be woken. */
  wakes(): boolean {
    const keeper = Atomics.load(this.#words, KEEPER);
    if (keeper === AWAKE || (keeper === DOZES && !this.#isFilling())) return false;
    return Atomics.exchange(this.#words, KEEPER, AWAKE) !== AWAKE;
  }

  /** True if a quarter of the ring is lines. It is looked now and then: not for every line. */
  #isFilling(): boolean {
    if (!this.#mayBeFilling) return false;
    this.#mayBeFilling = this.used >= this.#quarter;
    return this.#mayBeFilling;
  }
}

function otherOf(kind: number, count: number): number {
  return (count * 4 + kind) * 4 + TAG.other;
}
