import type { ByteSource } from '../byte-source.ts';
import { ShimError } from '../error.ts';

/** How much of the file is in memory at once. No field that is read as a whole is longer. */
const WINDOW = 64 * 1024;
/** The longest text that is read: QEMU writes the length of most in one byte. */
const MAX_TEXT = 255;
const PRINTABLE = /^[\u0020-\u007E]*$/;

/** Reads big endian fields of a file, one after the other. What is missing is `ERR_STREAM_TRUNCATED`. */
export class Cursor {
  at: number;
  readonly #source: ByteSource;
  readonly #window = Buffer.alloc(WINDOW);
  /** Where the window lies in the file, and how far it is filled. */
  #begin = 0;
  #filled = 0;

  constructor(source: ByteSource, at = 0) {
    this.#source = source;
    this.at = at;
  }

  /** The next byte, without consuming it; `undefined` at the end of the file. */
  peek(): number | undefined {
    return this.at < this.#source.size ? this.#window[this.#load(this.at, 1)] : undefined;
  }

  u8(what: string): number {
    return this.#window.readUInt8(this.#take(1, what));
  }

  u16(what: string): number {
    return this.#window.readUInt16BE(this.#take(2, what));
  }

  u32(what: string): number {
    return this.#window.readUInt32BE(this.#take(4, what));
  }

  /** A u64 that may be any. */
  word(what: string): bigint {
    return this.#window.readBigUInt64BE(this.#take(8, what));
  }

  /** A u64 that has to be a safe integer: a length or an address. */
  u64(what: string): number {
    const { at } = this;
    const index = this.#take(8, what);
    const value = this.#window.readUInt32BE(index) * 2 ** 32 + this.#window.readUInt32BE(index + 4);
    if (!Number.isSafeInteger(value)) {
      const word = this.#window.readBigUInt64BE(index);
      throw corrupt(`reading ${what} at offset ${at}: 0x${word.toString(16)} is too large`);
    }
    return value;
  }

  /** `length` bytes, at most 255, in memory of their own. */
  bytes(length: number, what: string): Uint8Array {
    const { at } = this;
    this.#advance(length, what);
    if (length > MAX_TEXT) throw corrupt(`reading ${what} at offset ${at}: ${length} bytes, at most ${MAX_TEXT}`);
    const index = this.#load(at, length);
    return Uint8Array.from(this.#window.subarray(index, index + length));
  }

  /** A name of `length` bytes. QEMU's are printable ASCII, and nothing else reaches a message or a terminal. */
  text(length: number, what: string): string {
    const { at } = this;
    const text = Buffer.from(this.bytes(length, what)).toString('latin1');
    if (!PRINTABLE.test(text)) throw corrupt(`reading ${what} at offset ${at}: is not printable ASCII`);
    return text;
  }

  /** A name after its length in one byte. */
  string(what: string): string {
    return this.text(this.u8(what), what);
  }

  skip(length: number, what: string): void {
    this.#advance(length, what);
  }

  /** Moves on over `length` bytes that are all there; returns where they begin in the window. */
  #take(length: number, what: string): number {
    return this.#load(this.#advance(length, what), length);
  }

  #advance(length: number, what: string): number {
    const { at } = this;
    const missing = at + length - this.#source.size;
    if (missing > 0) {
      const there = Math.min(missing, length);
      throw truncated(`reading ${what} at offset ${at}: ${there} of ${length} bytes missing`);
    }
    this.at += length;
    return at;
  }

  #load(at: number, length: number): number {
    if (at < this.#begin || at + length > this.#begin + this.#filled) {
      this.#begin = at;
      this.#filled = this.#source.read(this.#window, at);
      // the file was longer when it was opened
      if (this.#filled < length) throw truncated(`reading at offset ${at}: the file has become shorter`);
    }
    return at - this.#begin;
  }
}

/**
 * Where these bytes lie in a file, one place after the other: all that begin at `from` or later, and end at `to` or before. Places
 * may overlap.
 */
export function* placesOf(wanted: Uint8Array, source: ByteSource, from: number, to: number): Generator<number, void> {
  const window = Buffer.alloc(WINDOW);
  const end = Math.min(to, source.size);
  for (let begin = from; begin + wanted.length <= end; begin += WINDOW - wanted.length + 1) {
    const filled = source.read(window, begin);
    const seen = window.subarray(0, Math.min(filled, end - begin));
    for (let index = -1; (index = seen.indexOf(wanted, index + 1)) >= 0;) yield begin + index;
  }
}

export function corrupt(message: string): ShimError {
  return new ShimError('ERR_STREAM_CORRUPT', message);
}

export function truncated(message: string): ShimError {
  return new ShimError('ERR_STREAM_TRUNCATED', message);
}
