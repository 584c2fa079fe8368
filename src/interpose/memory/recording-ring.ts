import type { LineWriter } from '../../recording/line-writer.ts';
import { Part } from './line-shape.ts';

/** Bytes of the lines that a supervisor may be ahead of its keeper: some 60,000 accesses. */
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
 * How a line begins, and the number of its shape is the unit behind it. The first line of a shape has all its parts, and their number; all
 * others have their slots, which are its numbers and texts, and nothing of what lines of that shape have in common.
 */
const LINE = { slots: 0, parts: 1 } as const;
/** How a part begins: what it is, and behind that its length in two units if it is a word or a text. */
const PART = { word: 0, text: 1, small: 2, number: 3 } as const;
const UNIT = 2 ** 16;
const UNITS_OF_A_LINE = 2;
const UNITS_OF_A_LENGTH = 2;
/** Of a number that is larger than a unit, the lowest first. */
const UNITS_OF_A_NUMBER = 4;
/** So many shapes are known at a time: lines that are all unlike would else fill the memory of both sides. */
const MOST_SHAPES = 2048;

/** So many characters of lines become bytes at a time. */
const PIECE_OF_TEXT = 2 ** 16;

type Slot = number | string;

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
  /** Of the line that is not complete: its last part, and its slots. */
  #root = new Part('word');
  #part = this.#root;
  readonly #slots: Slot[] = [];
  #count = 0;
  /** So many shapes have a number. */
  #shapes = 0;
  /** What stands before, between and behind the slots of each shape, for whoever takes the lines. */
  readonly #known: (readonly string[])[] = [];
  /** The next unit that is written, or taken. */
  #at = 0;

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

  word(text: string): void {
    this.#part = this.#part.withWord(text);
  }

  number(value: number): void {
    this.#part = this.#part.withNumber();
    this.#slot(value);
  }

  text(text: string): void {
    this.#part = this.#part.withText();
    this.#slot(text);
  }

  #slot(value: Slot): void {
    this.#slots[this.#count] = value;
    this.#count += 1;
  }

  /** There is to be no such line. */
  discard(): void {
    this.#part = this.#root;
    this.#count = 0;
  }

  /** Puts the line behind the others; false if there was no room for it. Another one begins. */
  commit(): boolean {
    const fits = this.#part.shape < 0 ? this.#commitParts() : this.#commitSlots();
    if (this.#shapes === MOST_SHAPES) {
      this.#root = new Part('word');
      this.#shapes = 0;
    }
    this.discard();
    return fits;
  }

  /** A line of a shape that whoever takes the lines knows. */
  #commitSlots(): boolean {
    if (!this.#begin(UNITS_OF_A_LINE + this.#unitsOfSlots(), LINE.slots, this.#part.shape)) return false;
    for (let n = 0; n < this.#count; n += 1) this.#putSlot(this.#slots[n] ?? 0);
    this.#end();
    return true;
  }

  /** The first line of its shape. */
  #commitParts(): boolean {
    const { line } = this.#part;
    let size = UNITS_OF_A_LINE + UNITS_OF_A_LENGTH + this.#unitsOfSlots();
    for (const { kind, word } of line) if (kind === 'word') size += unitsOf(word);
    if (!this.#begin(size, LINE.parts, this.#shapes)) return false;
    this.#putLength(line.length);
    let n = 0;
    for (const { kind, word } of line) {
      if (kind === 'word') this.#putText(PART.word, word);
      else {
        this.#putSlot(this.#slots[n] ?? 0);
        n += 1;
      }
    }
    this.#end();
    this.#part.shape = this.#shapes;
    this.#shapes += 1;
    return true;
  }

  #unitsOfSlots(): number {
    let size = 0;
    for (let n = 0; n < this.#count; n += 1) size += unitsOf(this.#slots[n] ?? 0);
    return size;
  }

  #begin(size: number, how: number, shape: number): boolean {
    const head = this.#words[HEAD] ?? 0; // nobody else writes it
    if (size > this.#units.length - ((head - Atomics.load(this.#words, TAIL)) >>> 0)) return false;
    this.#at = head;
    this.#put(how);
    this.#put(shape);
    return true;
  }

  #end(): void {
    Atomics.store(this.#words, HEAD, this.#at | 0); // last: now it counts
  }

  #put(unit: number): void {
    this.#units[this.#at & this.#mask] = unit;
    this.#at += 1;
  }

  #putLength(length: number): void {
    this.#put(length % UNIT);
    this.#put(Math.floor(length / UNIT));
  }

  #putSlot(value: Slot): void {
    if (typeof value === 'string') this.#putText(PART.text, value);
    else if (value < UNIT) {
      this.#put(PART.small);
      this.#put(value);
    } else {
      const low = value >>> 0;
      const high = (value - low) / 2 ** 32;
      this.#put(PART.number);
      this.#put(low & 0xffff);
      this.#put(low >>> 16);
      this.#put(high & 0xffff);
      this.#put(high >>> 16);
    }
  }

  #putText(kind: number, text: string): void {
    this.#put(kind);
    this.#putLength(text.length);
    for (let n = 0; n < text.length; n += 1) this.#put(text.charCodeAt(n));
  }

  /** All lines that there are, which are there no more, in UTF-8. Always by the same object: it knows the shapes. */
  take(): Uint8Array {
    const head = Atomics.load(this.#words, HEAD);
    const length = (head - Atomics.load(this.#words, TAIL)) >>> 0;
    this.#at = head - length;
    const lines: Buffer[] = [];
    let text = '';
    while (this.#at !== head) {
      text += this.#takeLine();
      if (text.length < PIECE_OF_TEXT && this.#at !== head) continue;
      lines.push(Buffer.from(text));
      text = '';
    }
    Atomics.store(this.#words, TAIL, head);
    return Buffer.concat(lines);
  }

  #takeLine(): string {
    const how = this.#take();
    const shape = this.#take();
    if (how === LINE.slots) return this.#takeSlots(shape);
    let text = '';
    let words = '';
    const between: string[] = [];
    for (let left = this.#takeLength(); left > 0; left -= 1) {
      const kind = this.#take();
      const part = this.#takePart(kind);
      text += part;
      if (kind === PART.word) words += part;
      else {
        between.push(words);
        words = '';
      }
    }
    this.#known[shape] = [...between, words];
    return text;
  }

  #takeSlots(shape: number): string {
    const between = this.#known[shape];
    if (between === undefined) throw new RangeError(`no line of shape ${shape} has come before`);
    let text = between[0] ?? '';
    for (let n = 1; n < between.length; n += 1) text += this.#takePart(this.#take()) + between[n];
    return text;
  }

  #takePart(kind: number): string {
    if (kind === PART.small) return String(this.#take());
    if (kind === PART.number) {
      let value = 0;
      for (let n = 0; n < UNITS_OF_A_NUMBER; n += 1) value += this.#take() * UNIT ** n;
      return String(value);
    }
    let text = '';
    for (let left = this.#takeLength(); left > 0; left -= 1) text += String.fromCharCode(this.#take());
    return text;
  }

  #takeLength(): number {
    const low = this.#take();
    return low + this.#take() * UNIT;
  }

  #take(): number {
    const unit = this.#units[this.#at & this.#mask] ?? 0;
    this.#at += 1;
    return unit;
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

function unitsOf(slot: Slot): number {
  if (typeof slot === 'string') return 1 + UNITS_OF_A_LENGTH + slot.length;
  return 1 + (slot < UNIT ? 1 : UNITS_OF_A_NUMBER);
}
