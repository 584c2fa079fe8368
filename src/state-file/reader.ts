import { createHash } from 'node:crypto';
import type { ByteSource } from '../byte-source.ts';
import { corrupt, decodeHeader, fileSize, HEADER_SIZE, LENGTH_SIZE, truncated, type StateHeader } from './format.ts';

/** Called with the bytes of migration data that have gone by. */
export type Watch = (bytes: number) => void;

/** Bytes of a buffer: where they lie in it, and how long all of it is. */
export interface BufferPiece {
  readonly size: number;
  readonly at: number;
  readonly bytes: Uint8Array;
}

const BLOCK = 1024 * 1024;

/** A state file. The header is checked when it is opened, all else by check(), and once more whenever it is read. */
export class StateReader {
  readonly header: StateHeader;
  readonly #source: ByteSource;
  readonly #whole: number;

  /** Throws `ERR_FILE_CORRUPT`, `ERR_FILE_TRUNCATED` or `ERR_FILE_VERSION`. */
  constructor(source: ByteSource) {
    const page = new Uint8Array(HEADER_SIZE);
    this.#source = source;
    this.header = decodeHeader(page.subarray(0, source.read(page, 0)), source.size);
    this.#whole = fileSize(this.header);
  }

  /** Reads all of it. Throws if a single bit is not as it was written. */
  check(watch: Watch = () => {}): void {
    for (const piece of this.buffers(BLOCK)) watch(piece.length);
  }

  /** The buffers, in memory that is reused; one of more than `most` bytes in pieces of `most`. Throws as pieces() does. */
  *buffers(most: number): Generator<Uint8Array, void> {
    for (const { bytes } of this.pieces(most)) yield bytes;
  }

  /** The same, each piece with what it is a piece of. Throws at the end if the hash is not the header's. */
  *pieces(most: number): Generator<BufferPiece, void> {
    const hash = createHash('sha256');
    const length = new Uint8Array(LENGTH_SIZE);
    let memory = new Uint8Array(0);
    let position = HEADER_SIZE;
    const fill = (into: Uint8Array): void => {
      const read = this.#source.read(into, position);
      if (read < into.length) throw truncated(position + read, this.#whole);
      hash.update(into);
      position += read;
    };
    for (let n = 0; n < this.header.buffers; n += 1) {
      fill(length);
      const size = this.#lengthOf(length, position);
      if (memory.length < Math.min(size, most)) memory = new Uint8Array(Math.min(size, most));
      for (let at = 0; at < size;) {
        const bytes = memory.subarray(0, Math.min(size - at, most));
        fill(bytes);
        yield { size, at, bytes };
        at += bytes.length;
      }
    }
    if (position !== this.#whole || hash.digest('hex') !== this.header.sha256) {
      throw corrupt('is damaged: its data is not what was written');
    }
  }

  /** A length that the rest of the file has room for. */
  #lengthOf(bytes: Uint8Array, position: number): number {
    const length = new DataView(bytes.buffer).getBigUint64(0, true);
    if (length > 0n && length <= this.#whole - position) return Number(length);
    throw corrupt(`is damaged: a buffer of ${length} bytes at ${position - LENGTH_SIZE}`);
  }
}
