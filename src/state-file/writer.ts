import type { Protocol } from '../device/migratable.ts';
import { createHash } from 'node:crypto';
import { encodeHeader, HEADER_SIZE, LENGTH_SIZE, type StateHeader } from './format.ts';
import type { Identity } from './identity.ts';

/** Where a state file is written to. */
export interface ByteSink {
  write(bytes: Uint8Array, position: number): void;
}

const BLOCK = 1024 * 1024;

/** Writes a state file, a block at a time: buffers as they come, and the header at the end, when it is known. */
export class StateWriter {
  readonly #sink: ByteSink;
  readonly #hash = createHash('sha256');
  readonly #block = new Uint8Array(BLOCK);
  readonly #length = new Uint8Array(LENGTH_SIZE);
  readonly #lengthView = new DataView(this.#length.buffer);
  #filled = 0;
  #position = HEADER_SIZE;
  #bytes = 0;
  #buffers = 0;

  constructor(sink: ByteSink) {
    this.#sink = sink;
  }

  /** Bytes of migration data so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /** One buffer of migration data. It is copied before it is hashed and written, as a driver may change it at any time. */
  buffer(bytes: Uint8Array): void {
    this.beginBuffer(bytes.length);
    this.more(bytes);
  }

  /** Begins a buffer of `size` bytes, which more() then gives, in pieces. One of none is left out. */
  beginBuffer(size: number): void {
    if (size === 0) return;
    this.#lengthView.setBigUint64(0, BigInt(size), true);
    this.#append(this.#length);
    this.#buffers += 1;
  }

  /** A piece of the buffer that was begun last. */
  more(bytes: Uint8Array): void {
    this.#append(bytes);
    this.#bytes += bytes.length;
  }

  /** Completes the file, and returns what its header says. */
  finish(protocol: Protocol, identity: Identity): StateHeader {
    this.#flush();
    const sha256 = this.#hash.digest('hex');
    const header = { protocol, identity, bytes: this.#bytes, buffers: this.#buffers, sha256 };
    this.#sink.write(encodeHeader(header), 0);
    return header;
  }

  #append(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      const piece = bytes.subarray(done, done + BLOCK - this.#filled);
      this.#block.set(piece, this.#filled);
      this.#filled += piece.length;
      done += piece.length;
      if (this.#filled === BLOCK) this.#flush();
    }
  }

  #flush(): void {
    const block = this.#block.subarray(0, this.#filled);
    this.#hash.update(block);
    this.#sink.write(block, this.#position);
    this.#position += this.#filled;
    this.#filled = 0;
  }
}
