import { V1 } from '../v1/states.ts';
import { Kind, MAGIC, PAGE, record, type VendorState } from './vendor-v1-format.ts';
import type { IterativeValues } from './vendor-v1-options.ts';

/** How much memory one look for changed pages compares in pre-copy, in bytes. */
const SCAN_WINDOW = 16 * 1024 * 1024;
/** A device that dirties its own pages does so for this many buffers, so that pre-copy converges. */
const DIRTYING_BUFFERS = 64;

/** What a source works on: memory, memory as it was last sent, and where the current buffer is put. */
export interface SaverMemory {
  readonly bar: Uint8Array;
  readonly sent: Uint8Array;
  readonly buffer: Uint8Array;
}

/**
 * The source's half of `vendor-v1`: pre-copy sends all memory once and then what has changed since; stop-and-copy sends the rest. What was
 * sent is remembered only once the user acknowledged it, and by content, so that writes of the guest count as well as the
 * device's own.
 */
export class VendorSaver {
  readonly #values: IterativeValues;
  readonly #memory: SaverMemory;
  readonly #my: VendorState;
  /** The most bytes of memory that a buffer has. */
  readonly #most: number;

  constructor(values: IterativeValues, memory: SaverMemory, state: VendorState, most: number) {
    this.#values = values;
    this.#memory = memory;
    this.#my = state;
    this.#most = most;
  }

  begin(): void {
    const my = this.#my;
    my.cursor = 0;
    my.scan = 0;
    my.buffer_size = 0;
    my.buffer_kind = 0;
    my.shown = 0;
    my.header_sent = 0;
    my.end_sent = 0;
    my.dirtied = 0;
  }

  /** Memory that was never sent. */
  get rest(): number {
    return Math.max(0, this.#values.size - this.#my.cursor);
  }

  /** The user has the buffer: what it held counts as sent. Repeating this changes nothing. */
  acknowledge(): void {
    const my = this.#my;
    if (my.buffer_kind === Kind.HEADER) my.header_sent = 1;
    if (my.buffer_kind === Kind.END) my.end_sent = 1;
    if (my.buffer_kind === Kind.PAGES) {
      const { buffer, sent } = this.#memory;
      sent.set(buffer.subarray(record.size, my.buffer_size), my.buffer_offset);
      my.cursor = Math.max(my.cursor, my.buffer_offset + my.buffer_size - record.size);
      if (my.device_state === V1.PRE_COPY) this.#dirtyOwnPages();
    }
    my.buffer_size = 0;
    my.buffer_kind = 0;
    my.shown = 0;
  }

  /** Puts the next record into the buffer; none if there is nothing to send now. */
  prepare(): void {
    const my = this.#my;
    const stopped = my.device_state === V1.STOP_COPY;
    if (my.header_sent === 0) {
      this.#put(Kind.HEADER, this.#values.size, 0);
      return;
    }
    const run = this.#nextRun(stopped);
    if (run !== undefined) this.#put(Kind.PAGES, run.offset, run.length);
    else if (stopped && my.end_sent === 0) this.#put(Kind.END, 0, 0);
  }

  #put(kind: number, offset: number, length: number): void {
    const { buffer, bar } = this.#memory;
    const { version, compat } = this.#values;
    record.encode({ magic: MAGIC, kind, version, compat, offset: BigInt(offset), length: BigInt(length) }, buffer);
    if (kind === Kind.PAGES) buffer.set(bar.subarray(offset, offset + length), record.size);
    const my = this.#my;
    my.buffer_kind = kind;
    my.buffer_offset = offset;
    my.buffer_size = record.size + length;
  }

  /** Memory that the destination lacks: first all of it, then what differs from what was sent. */
  #nextRun(stopped: boolean): { offset: number; length: number } | undefined {
    const my = this.#my;
    const { bar, sent } = this.#memory;
    const { size } = this.#values;
    const most = this.#most;
    if (my.cursor < size) return { offset: my.cursor, length: Math.min(most, size - my.cursor) };
    const window = stopped ? size : Math.min(size, SCAN_WINDOW);
    const changed = (at: number): boolean =>
      Buffer.compare(bar.subarray(at, Math.min(size, at + PAGE)), sent.subarray(at, Math.min(size, at + PAGE))) !== 0;
    for (let looked = 0; looked < window; looked += PAGE) {
      if (my.scan >= size) {
        if (stopped) return undefined;
        my.scan = 0;
      }
      if (changed(my.scan)) {
        let end = my.scan + PAGE;
        while (end < size && end - my.scan < most && changed(end)) end += PAGE;
        return { offset: my.scan, length: Math.min(end, size, my.scan + most) - my.scan };
      }
      my.scan += PAGE;
    }
    return undefined;
  }

  /** The device works while it is being saved. */
  #dirtyOwnPages(): void {
    const my = this.#my;
    if (my.dirtied >= DIRTYING_BUFFERS) return;
    my.dirtied += 1;
    const pages = Math.max(1, Math.floor(this.#values.size / PAGE));
    for (let n = 0; n < this.#values.dirty; n += 1) {
      const page = Math.imul(my.dirtied * 31 + n + this.#values.seed, 0x9e3779b1) >>> 0;
      const at = (page % pages) * PAGE;
      this.#memory.bar[at] = ((this.#memory.bar[at] ?? 0) + 1) & 0xff;
    }
  }
}
