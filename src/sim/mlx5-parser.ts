import type { ByteStore } from './byte-store.ts';
import { incomingHeader, LARGEST_RECORD, record_header, Tag, TAG_OPTIONAL, type Mlx5State } from './mlx5-format.ts';
import type { Mlx5Layout } from './mlx5-layout.ts';
import { simError } from './sim-error.ts';
import type { SimMemory } from './memory.ts';

/**
 * What a resuming device is written: records, wherever the pieces are cut (drivers/vfio/pci/mlx5/main.c: mlx5vf_resume_write, Linux 7.1).
 * An image is loaded within the write that completes it.
 */
export class Mlx5Parser {
  readonly #my: Mlx5State;
  readonly #header: Uint8Array;
  readonly #kept: ByteStore;
  readonly #layout: Mlx5Layout;
  readonly #load: (length: number) => void;

  /** `load` takes an image of so many bytes from where it lies in what is kept. */
  constructor(memory: SimMemory, my: Mlx5State, kept: ByteStore, layout: Mlx5Layout, load: (length: number) => void) {
    this.#my = my;
    this.#header = incomingHeader(memory);
    this.#kept = kept;
    this.#layout = layout;
    this.#load = load;
  }

  begin(): void {
    this.#my.header_taken = 0;
  }

  write(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      at +=
        this.#my.header_taken < record_header.size
          ? this.#takeHeader(bytes.subarray(at))
          : this.#take(bytes.subarray(at));
    }
  }

  #takeHeader(bytes: Uint8Array): number {
    const my = this.#my;
    const piece = bytes.subarray(0, record_header.size - my.header_taken);
    this.#header.set(piece, my.header_taken);
    my.header_taken += piece.length;
    if (my.header_taken === record_header.size) this.#beginRecord();
    return piece.length;
  }

  #beginRecord(): void {
    const my = this.#my;
    const { record_size, flags, tag } = record_header.decode(this.#header);
    const isKnown = tag === Tag.FW_DATA || tag === Tag.STOP_COPY_SIZE;
    if (record_size > BigInt(LARGEST_RECORD)) throw simError('ENOMEM', `a record of ${record_size} bytes`);
    if (!isKnown && (flags & TAG_OPTIONAL) === 0) throw simError('EOPNOTSUPP', `a record with the tag ${tag}`);
    if (tag === Tag.FW_DATA && record_size === 0n) throw simError('EINVAL', 'an image of 0 bytes');
    if (tag === Tag.FW_DATA && record_size > BigInt(this.#layout.incomingSize)) {
      throw simError('ENOMEM', `an image of ${record_size} bytes`);
    }
    my.tag = tag;
    my.record_size = Number(record_size);
    my.taken = 0;
    if (my.record_size === 0) my.header_taken = 0;
  }

  /** The payload: of images it is kept, of all else it says nothing that matters here. */
  #take(bytes: Uint8Array): number {
    const my = this.#my;
    const piece = bytes.subarray(0, my.record_size - my.taken);
    if (my.tag === Tag.FW_DATA) this.#kept.write(this.#layout.incomingAt + my.taken, piece);
    my.taken += piece.length;
    if (my.taken === my.record_size) {
      my.header_taken = 0;
      if (my.tag === Tag.FW_DATA) this.#load(my.record_size);
    }
    return piece.length;
  }
}
