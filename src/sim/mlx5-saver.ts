import type { PrecopyInfo } from '../v2/device.ts';
import { V2 } from '../v2/states.ts';
import type { ByteStore } from './byte-store.ts';
import {
  File,
  FIRST_RECORD_SIZE,
  image_extent,
  image_header,
  Kind,
  listedRecords,
  PAGE,
  record_header,
  Save,
  Tag,
  TAG_OPTIONAL,
  type ListedRecord,
  type Mlx5State,
} from './mlx5-format.ts';
import { differingPages, Image, runsOf, type Extent } from './mlx5-image.ts';
import type { Mlx5Layout } from './mlx5-layout.ts';
import type { Mlx5Values } from './mlx5.ts';
import type { SimMemory } from './memory.ts';
import { simError, simNotYet } from './sim-error.ts';

/** Images of stop-and-copy that are ahead of the reader at most (cmd.h: MAX_NUM_CHUNKS). */
const CHUNKS_AHEAD = 2;
/** A device that dirties its own pages does so for this many images, so that pre-copy converges. */
const DIRTYING_IMAGES = 64;

/** The memory of a device: the guest's, and what its driver keeps. */
export interface Mlx5Stores {
  readonly guest: ByteStore;
  readonly kept: ByteStore;
}

/**
 * The saving half of `mlx5` (drivers/vfio/pci/mlx5/{main,cmd}.c, Linux 6.12 and 7.1). The firmware works by the clock: a SAVE that was
 * due is found to have ended at the next look, so that it goes on while others read, and without a thread.
 *
 * An image of pre-copy has the pages that had changed when its SAVE ended, with what is in them when they are read; what was read last is
 * kept, and what differs from that is what is to be sent again. An image of stop-and-copy is of a device that stands still. So images need
 * no memory, and a process that takes over finds the same ones.
 */
export class Mlx5Saver {
  readonly #values: Mlx5Values;
  readonly #my: Mlx5State;
  readonly #list: readonly ListedRecord[];
  readonly #guest: ByteStore;
  /** The first bytes of the memory, as they were sent last. */
  readonly #sent: ByteStore;
  readonly #kept: ByteStore;
  readonly #layout: Mlx5Layout;
  readonly #clock: () => number;
  readonly #images = new Map<string, Image>();

  /** `clock`: microseconds of `CLOCK_MONOTONIC`. */
  constructor(
    values: Mlx5Values,
    memory: SimMemory,
    my: Mlx5State,
    { guest, kept }: Mlx5Stores,
    layout: Mlx5Layout,
    clock: () => number,
  ) {
    this.#values = values;
    this.#my = my;
    this.#list = listedRecords(memory);
    this.#guest = guest;
    this.#kept = kept;
    this.#sent = kept;
    this.#layout = layout;
    this.#clock = clock;
  }

  /** Begins a session; in pre-copy with an image of all that pre-copy sends. */
  begin(preCopy: boolean): void {
    const my = this.#my;
    this.end();
    this.#push(Kind.FIRST, FIRST_RECORD_SIZE);
    my.initial_end = FIRST_RECORD_SIZE;
    if (preCopy) this.#startSave(Save.PRE_COPY, this.#clock());
    else this.beginStopCopy(false);
  }

  /** Begins the images of stop-and-copy, behind what was not read. `incremental`: without what pre-copy has sent. */
  beginStopCopy(incremental: boolean): void {
    const my = this.#my;
    my.incremental = incremental ? 1 : 0;
    my.cursor = 0;
    my.file = File.CHUNKS;
    this.#startSave(Save.FINAL, this.#clock());
  }

  end(): void {
    const my = this.#my;
    for (const record of this.#list) record.kind = Kind.NONE;
    my.file = File.SAVING;
    my.saving = Save.NONE;
    my.position = 0;
    my.pre_copies = 0;
    my.queries = 0;
    my.reinit = 0;
    this.#images.clear();
  }

  /** When the SAVE that is under way ends, in microseconds of `CLOCK_MONOTONIC`; `undefined` if there is none. */
  get due(): number | undefined {
    const { saving, due } = this.#my;
    return saving === Save.NONE ? undefined : due;
  }

  /** Finds the commands of the firmware that have ended by now. `state`: the device's. */
  settle(state: number): void {
    const my = this.#my;
    for (;;) {
      if (my.saving === Save.NONE || this.#clock() < my.due) return;
      this.#endSave(state);
    }
  }

  /** read(2) of the data fd (main.c: mlx5vf_save_read): across records, short at the end of what is there. */
  read(into: Uint8Array, state: number): number {
    const my = this.#my;
    if (my.file === File.ERROR) throw simError('ENODEV', 'the data fd: saving has failed');
    if (this.#first === undefined && !this.#isAtEnd()) return 0;
    let read = 0;
    for (let record = this.#first; record !== undefined && read < into.length; record = this.#first) {
      const piece = into.subarray(read, read + record.size - record.taken);
      this.#readRecord(record, piece, state);
      record.taken += piece.length;
      my.position += piece.length;
      read += piece.length;
      if (record.taken === record.size) this.#finish(record, state);
    }
    return read;
  }

  /** With nothing in the list: false at the end of the stream, for which a read returns 0; throws if there is no data now, or not yet. */
  #isAtEnd(): never | boolean {
    const my = this.#my;
    switch (my.file) {
      case File.COMPLETE:
        return false;
      case File.PRE_COPY:
        // 7.1 waits for the SAVE that is under way (mlx5vf_save_read), 6.12 does not
        if (my.saving !== Save.NONE && this.#values.kernel === '7.1')
          throw simNotYet('an image is being saved', my.due);
        throw simError('ENOMSG', 'no data now');
      case File.PRE_COPY_ERROR:
        throw simError('ENOMSG', 'no data now, the firmware has failed to save in pre-copy');
      default:
        throw simNotYet('an image is being saved', my.due);
    }
  }

  /**
   * What poll(2) says (main.c: mlx5vf_save_poll), as V2DataSession.readableFrom(): nothing where a read is ENOMSG, and what has failed is
   * ready. A SAVE that is under way will have an image, or fail.
   */
  readableFrom(): number {
    const { file, saving, due } = this.#my;
    if (this.#first !== undefined || file === File.COMPLETE || file === File.ERROR) return 0;
    if (saving === Save.NONE || this.#failureOfSave(saving) === File.PRE_COPY_ERROR) return Infinity;
    return due;
  }

  /** VFIO_MIG_GET_PRECOPY_INFO (main.c: mlx5vf_precopy_ioctl). It may start a SAVE; and it waits for the one that is under way. */
  precopyInfo(state: number): PrecopyInfo {
    const my = this.#my;
    if (my.file === File.ERROR) throw simError('ENODEV', 'the data fd: saving has failed');
    const isRunning = state === V2.PRE_COPY;
    if (isRunning && my.saving !== Save.NONE) throw simNotYet('an image is being saved', my.due);
    const increment = isRunning && my.file === File.PRE_COPY ? this.#incrementSize() : 0;
    my.queries += 1;
    const isReinit = my.opted_in === 1 && isRunning && my.queries === this.#values.reinit;
    const unread = this.#list.reduce((sum, { kind, size, taken }) => sum + (kind === Kind.NONE ? 0 : size - taken), 0);
    const initial = Math.max(0, my.initial_end - my.position);
    const starts = increment > 0 && (unread === 0 || isReinit) && this.#preCopiesListed < 2;
    let left = unread + (initial > 0 && !isReinit ? 0 : increment);
    if (starts) {
      if (this.#values.kernel === '7.1') left += record_header.size;
      this.#startSave(Save.PRE_COPY, this.#clock());
    }
    if (isReinit) {
      my.initial_end = my.position + unread;
      my.reinit = starts ? 1 : 0;
    }
    const told = my.opted_in === 1 ? { reinit: isReinit } : {};
    if (isReinit) return { initialBytes: left, dirtyBytes: 0, ...told };
    if (initial > 0) return { initialBytes: initial, dirtyBytes: 0, ...told };
    return { initialBytes: 0, dirtyBytes: left, ...told };
  }

  /** VFIO_DEVICE_FEATURE_MIG_DATA_SIZE: what the firmware says, which knows nothing of the driver's headers. */
  dataSize(): number {
    const my = this.#my;
    const rest =
      my.file === File.CHUNKS || my.file === File.COMPLETE ? this.#values.size - my.cursor : this.#values.size;
    return image_header.size + image_extent.size + rest;
  }

  get #first(): ListedRecord | undefined {
    const [first] = this.#list;
    return first === undefined || first.kind === Kind.NONE ? undefined : first;
  }

  get #preCopiesListed(): number {
    return this.#list.filter(({ kind }) => kind === Kind.PRE_COPY).length;
  }

  #push(kind: number, size: number, place: { image?: number; from?: number; to?: number } = {}): void {
    const record = this.#list.find((candidate) => candidate.kind === Kind.NONE);
    if (record === undefined) throw new RangeError('more records than the list has room for');
    const { image = 0, from = 0, to = 0 } = place;
    Object.assign(record, { kind, size, image, from, to, taken: 0 });
  }

  /** A record was read to its end: the others move up, and the firmware may have room for the next image. */
  #finish({ kind }: ListedRecord, state: number): void {
    for (const [n, record] of this.#list.entries()) {
      const next = this.#list[n + 1];
      if (next === undefined) record.kind = Kind.NONE;
      else {
        const { kind: nextKind, image, from, to, size, taken } = next;
        Object.assign(record, { kind: nextKind, image, from, to, size, taken });
      }
    }
    if (kind === Kind.FINAL) this.#startNextChunk(this.#clock(), state);
  }

  #startNextChunk(at: number, state: number): void {
    const my = this.#my;
    if (my.file !== File.CHUNKS || my.saving !== Save.NONE) return;
    const ahead = this.#list.filter(({ kind }) => kind === Kind.FINAL).length;
    if (ahead >= CHUNKS_AHEAD) return;
    this.#startSave(Save.FINAL, at);
    this.settle(state);
  }

  #startSave(kind: number, at: number): void {
    const my = this.#my;
    my.saving = kind;
    my.due = at + this.#values.delay * 1000;
  }

  #endSave(state: number): void {
    const my = this.#my;
    const { saving, due } = my;
    const failure = this.#failureOfSave(saving);
    my.saving = Save.NONE;
    my.saves += 1;
    if (failure !== undefined) {
      my.file = failure;
      return;
    }
    if (saving === Save.PRE_COPY) this.#addPreCopyImage(state);
    else this.#addChunk(due, state);
  }

  /** What the file is once the SAVE that is under way has ended, if that fails. */
  #failureOfSave(saving: number): number | undefined {
    const failed = this.#values.fwerr.find(({ command, nth }) => command === 'SAVE' && nth === this.#my.saves + 1);
    if (failed === undefined) return undefined;
    return failed.isState && saving === Save.PRE_COPY ? File.PRE_COPY_ERROR : File.ERROR;
  }

  #addPreCopyImage(state: number): void {
    const my = this.#my;
    const { initial } = this.#layout;
    const isFirst = my.pre_copies === 0;
    const pages = isFirst
      ? Array.from({ length: Math.ceil(initial / PAGE) }, (_, page) => page)
      : [...differingPages(this.#guest, this.#sent, initial)];
    const map = new Uint8Array(this.#layout.mapSize);
    for (const page of pages) map[page >> 3] = (map[page >> 3] ?? 0) | (1 << (page & 7));
    const image = my.pre_copies;
    this.#kept.write(this.#mapAt(image), map);
    my.pre_copies += 1;
    my.file = File.PRE_COPY;
    this.#images.delete(`pre-copy ${image}`);
    const size = record_header.size + this.#imageOf(Kind.PRE_COPY, image, 0, 0).size;
    this.#push(Kind.PRE_COPY, size, { image });
    if (isFirst || my.reinit === 1) my.initial_end += size;
    my.reinit = 0;
    if (state === V2.PRE_COPY) this.#dirtyOwnPages();
  }

  #addChunk(due: number, state: number): void {
    const my = this.#my;
    const from = my.cursor;
    const to = this.#endOfChunk(from);
    my.cursor = to;
    this.#push(Kind.FINAL, record_header.size + this.#imageOf(Kind.FINAL, 0, from, to).size, { from, to });
    if (to === this.#values.size) my.file = File.COMPLETE;
    else this.#startNextChunk(due, state);
  }

  #mapAt(image: number): number {
    return this.#layout.mapsAt + (image % 2) * this.#layout.mapSize;
  }

  /** What an image of the increment would have in bytes; 0 if nothing has changed. */
  #incrementSize(): number {
    const { initial } = this.#layout;
    const extents = runsOf(differingPages(this.#guest, this.#sent, initial), initial);
    return extents.reduce(
      (sum, { length }) => sum + image_extent.size + length,
      extents.length > 0 ? image_header.size : 0,
    );
  }

  /** Reads what is left of a record, from where it was read last. */
  #readRecord(record: ListedRecord, into: Uint8Array, state: number): void {
    const header = this.#headerOf(record).subarray(record.taken, record.taken + into.length);
    into.set(header);
    if (header.length === into.length) return;
    const image = this.#imageOf(record.kind, record.image, record.from, record.to);
    const isSentAgain = record.kind === Kind.PRE_COPY && state !== V2.STOP_COPY;
    const note = (offset: number, bytes: Uint8Array): void => this.#sent.write(offset, bytes);
    const at = record.taken + header.length - record_header.size;
    image.read(at, into.subarray(header.length), this.#guest, isSentAgain ? note : undefined);
  }

  #headerOf({ kind, size }: ListedRecord): Uint8Array {
    const record_size = BigInt(size - record_header.size);
    if (kind !== Kind.FIRST) return record_header.encode({ record_size, flags: 0, tag: Tag.FW_DATA });
    const bytes = new Uint8Array(FIRST_RECORD_SIZE);
    record_header.encode({ record_size, flags: TAG_OPTIONAL, tag: Tag.STOP_COPY_SIZE }, bytes);
    // the buffer that a destination will want (main.c: mlx5vf_add_stop_copy_header)
    const { size: memory, chunk } = this.#values;
    const whole = image_header.size + image_extent.size + memory;
    new DataView(bytes.buffer).setBigUint64(
      record_header.size,
      BigInt(chunk === 0 ? whole : Math.min(whole, chunk)),
      true,
    );
    return bytes;
  }

  /** The same for the same place, also of another process: made anew if it was not made here. */
  #imageOf(kind: number, image: number, from: number, to: number): Image {
    const key = kind === Kind.PRE_COPY ? `pre-copy ${image}` : `final ${from}`;
    let made = this.#images.get(key);
    if (made === undefined) {
      made = new Image(
        this.#values,
        kind === Kind.PRE_COPY ? this.#mappedExtents(image) : [...this.#finalExtents(from, to)],
      );
      if (this.#images.size > 2 * CHUNKS_AHEAD) this.#images.clear();
      this.#images.set(key, made);
    }
    return made;
  }

  #mappedExtents(image: number): Extent[] {
    const map = new Uint8Array(this.#layout.mapSize);
    this.#kept.read(this.#mapAt(image), map);
    const pages = Array.from({ length: 8 * map.length }, (_, page) => page);
    return runsOf(
      pages.filter((page) => ((map[page >> 3] ?? 0) & (1 << (page & 7))) !== 0),
      this.#layout.initial,
    );
  }

  /** Of what lies between two places: of the part that pre-copy has sent, what differs from what was sent, and all of the rest. */
  *#finalExtents(from: number, to: number): Generator<Extent> {
    const tracked = this.#my.incremental === 1 ? this.#layout.initial : 0;
    const end = Math.min(to, tracked);
    if (from < end) yield* runsOf(differingPages(this.#guest, this.#sent, end, from / PAGE), tracked);
    const rest = Math.max(from, tracked);
    if (rest < to) yield { offset: rest, length: to - rest };
  }

  /** How far an image of stop-and-copy comes that begins at a place: a page's beginning, or the memory's end. */
  #endOfChunk(from: number): number {
    const { size, chunk } = this.#values;
    if (chunk === 0) return size;
    const tracked = this.#my.incremental === 1 ? this.#layout.initial : 0;
    let left = chunk - image_header.size - image_extent.size; // the extent behind the tracked part
    if (from < tracked) {
      for (const page of differingPages(this.#guest, this.#sent, tracked, from / PAGE)) {
        const cost = image_extent.size + PAGE;
        if (left < cost) return page * PAGE;
        left -= cost;
      }
    }
    const rest = Math.max(from, tracked);
    return rest + left >= size ? size : rest + left - (left % PAGE);
  }

  #dirtyOwnPages(): void {
    const my = this.#my;
    if (my.pre_copies > DIRTYING_IMAGES || this.#layout.initial === 0) return;
    const pages = Math.ceil(this.#layout.initial / PAGE);
    const word = new Uint8Array(4);
    for (let n = 0; n < this.#values.dirty; n += 1) {
      my.dirtied += 1;
      const at = (my.dirtied % pages) * PAGE;
      if (at + word.length > this.#layout.initial) continue;
      new DataView(word.buffer).setUint32(0, my.dirtied, true);
      this.#guest.write(at, word);
    }
  }
}
