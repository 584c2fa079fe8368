import { GAP, type LineWriter, type Word } from '../../recording/line-writer.ts';
import { GappedText } from './gapped-text.ts';
import { TextBytes } from './text-bytes.ts';

/** Bytes of the lines that a supervisor may be ahead of its keeper: some 100,000 accesses. Memory that no line has come to is none. */
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
 * A cell is a number of a line if it is not negative. If it is, it is a word, by its number; or it says how many UTF-16 units are in the
 * cells behind it: of a text, or of a word and behind the cell with the word's number.
 */
const CELL = { word: 1, text: 2, named: 3 } as const;
const KINDS = 4;
const UNITS_OF_A_CELL = 4;
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
  readonly #cells: Float64Array;
  readonly #units: Uint16Array;
  readonly #mask: number;
  /** The next cell that is written, or taken; where the line that is not complete begins. */
  #at: number;
  #begun: number;
  /** For so many cells there is room, as far as was looked; whether there was for all of the line. */
  #room = 0;
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
    this.#cells = new Float64Array(memory.buffer, memory.byteOffset + RING_HEADER, (memory.length - RING_HEADER) / 8);
    this.#units = new Uint16Array(memory.buffer, memory.byteOffset + RING_HEADER, this.#cells.length * UNITS_OF_A_CELL);
    this.#mask = this.#cells.length - 1;
    this.#quarter = this.#cells.length / 4;
    this.#at = Atomics.load(this.#words, HEAD) >>> 0;
    this.#begun = this.#at;
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

  /** Cells of lines that were not taken, of some millions. */
  get used(): number {
    return (Atomics.load(this.#words, HEAD) - Atomics.load(this.#words, TAIL)) >>> 0;
  }

  /** The numbers of its gaps are to be written next. */
  word(word: Word): void {
    if (word.numberedBy !== this.#numbers) this.#name(word);
    this.#put(-(KINDS * word.number + CELL.word));
  }

  number(value: number): void {
    this.#put(value);
  }

  text(text: string): void {
    this.#put(-(KINDS * text.length + CELL.text));
    this.#putUnits(text);
  }

  #name(word: Word): void {
    word.numberedBy = this.#numbers;
    word.number = this.#numbered;
    this.#numbered += 1;
    this.#named.push(word);
    this.#put(-(KINDS * word.text.length + CELL.named));
    this.#put(word.number);
    this.#putUnits(word.text);
  }

  #put(cell: number): void {
    if (this.#room === 0 && !this.#findRoom(1)) return;
    this.#cells[this.#at & this.#mask] = cell;
    this.#at += 1;
    this.#room -= 1;
  }

  #putUnits(text: string): void {
    const cells = cellsOf(text.length);
    if (this.#room < cells && !this.#findRoom(cells)) return;
    const mask = this.#units.length - 1;
    let unit = (this.#at & this.#mask) * UNITS_OF_A_CELL;
    for (let n = 0; n < text.length; n += 1) {
      this.#units[unit] = text.charCodeAt(n);
      unit = (unit + 1) & mask;
    }
    this.#at += cells;
    this.#room -= cells;
  }

  /** Looks what was taken meanwhile: at least once in a quarter of the ring. */
  #findRoom(cells: number): boolean {
    const room = this.#cells.length - this.used - (this.#at - this.#begun);
    this.#room = Math.min(room, Math.max(cells, this.#quarter));
    this.#mayBeFilling = true;
    if (room < cells) this.#hasRoom = false;
    return this.#hasRoom;
  }

  /** There is to be no such line. */
  discard(): void {
    for (const word of this.#named) word.numberedBy = undefined; // nobody was told
    this.#room = 0;
    this.#begin(this.#begun);
  }

  /** Puts the line behind the others; false if there was no room for it. Another one begins. */
  commit(): boolean {
    if (!this.#hasRoom) {
      this.discard();
      return false;
    }
    Atomics.store(this.#words, HEAD, this.#at | 0); // last: now it counts
    this.#begin(this.#at >>> 0);
    return true;
  }

  #begin(at: number): void {
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
    const cell = this.#takeCell();
    if (cell >= 0) {
      to.number(cell);
      return;
    }
    const count = Math.floor(-cell / KINDS);
    switch (-cell % KINDS) {
      case CELL.word: {
        const text = this.#texts[count];
        if (text === undefined) throw new RangeError(`no word ${count} has come before`);
        for (let gap = 0; gap < text.gaps; gap += 1) text.set(gap, this.#takeCell());
        text.addTo(to);
        return;
      }
      case CELL.named: {
        const number = this.#takeCell(); // the word itself comes behind
        const pieces = this.#takeUnits(count).split(GAP);
        this.#texts[number] = new GappedText(pieces.map((piece) => Buffer.from(piece)));
        return;
      }
      default:
        to.add(Buffer.from(this.#takeUnits(count)));
    }
  }

  #takeUnits(count: number): string {
    const units = new Uint16Array(count);
    const mask = this.#units.length - 1;
    let unit = (this.#at & this.#mask) * UNITS_OF_A_CELL;
    for (let n = 0; n < count; n += 1) {
      units[n] = this.#units[unit] ?? 0;
      unit = (unit + 1) & mask;
    }
    this.#at += cellsOf(count);
    return Buffer.from(units.buffer).toString('utf16le');
  }

  #takeCell(): number {
    const cell = this.#cells[this.#at & this.#mask] ?? 0;
    this.#at += 1;
    return cell;
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

function cellsOf(units: number): number {
  return Math.ceil(units / UNITS_OF_A_CELL);
}
