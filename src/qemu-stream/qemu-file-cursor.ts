import { ShimError } from '../error.ts';

/** Reads big endian fields of a file in memory, one after the other. What is missing is `ERR_STREAM_TRUNCATED`. */
export class Cursor {
  readonly #file: Uint8Array;
  readonly #view: DataView;
  at: number;

  constructor(file: Uint8Array, at = 0) {
    this.#file = file;
    this.#view = new DataView(file.buffer, file.byteOffset, file.length);
    this.at = at;
  }

  /** The next byte, without consuming it; `undefined` at the end of the file. */
  peek(): number | undefined {
    return this.#file[this.at];
  }

  u8(what: string): number {
    return this.#view.getUint8(this.#advance(1, what));
  }

  u16(what: string): number {
    return this.#view.getUint16(this.#advance(2, what));
  }

  u32(what: string): number {
    return this.#view.getUint32(this.#advance(4, what));
  }

  /** A u64 that has to be a safe integer: a length or an address. */
  u64(what: string): number {
    const at = this.#advance(8, what);
    const value = this.#view.getUint32(at) * 2 ** 32 + this.#view.getUint32(at + 4);
    if (!Number.isSafeInteger(value)) {
      throw corrupt(`reading ${what} at offset ${at}: 0x${this.#view.getBigUint64(at).toString(16)} is too large`);
    }
    return value;
  }

  /** `length` bytes as a view of the file. */
  bytes(length: number, what: string): Uint8Array {
    const at = this.#advance(length, what);
    return this.#file.subarray(at, at + length);
  }

  /** A string after its length in one byte. */
  string(what: string): string {
    const length = this.u8(what);
    return new TextDecoder().decode(this.bytes(length, what));
  }

  skip(length: number, what: string): void {
    this.#advance(length, what);
  }

  #advance(length: number, what: string): number {
    const { at } = this;
    const missing = at + length - this.#file.length;
    if (missing > 0) throw truncated(`reading ${what} at offset ${at}: ${missing} of ${length} bytes missing`);
    this.at += length;
    return at;
  }
}

export function corrupt(message: string): ShimError {
  return new ShimError('ERR_STREAM_CORRUPT', message);
}

export function truncated(message: string): ShimError {
  return new ShimError('ERR_STREAM_TRUNCATED', message);
}
