import { struct } from '../../abi/struct.ts';
import type { PageRange, PageSet } from '../../vfio/page-ranges.ts';
import type { Ledger } from './ledger.ts';

/*
 * What there is to know of a container of the kernel whose dirty pages are told from its devices' logs, in a ledger of its own: so it
 * changes together with the answer to the call that changes it.
 */

const head = struct('dirty_state', 64, {
  /** A container has been seen and was given this place. */
  used: ['u32', 0],
  /** Not all of its devices can be known: see {@link Opaque}. */
  opaque: ['u32', 4],
  /** The VMM asks devices for their logs itself: what it asks the container for is left to the kernel. */
  reads_logs: ['u32', 8],
  /** The kernel's log was started, and every device's, over the ranges. */
  logging: ['u32', 12],
  /** The latest read of the devices' logs whose result counts: {@link Reading}. */
  read: ['u32', 16],
  /** Of the devices that log, by their places: a bit each. */
  devices: ['u32', 20],
  /** Pages that a device's log is read by: a multiple of 64. */
  grid: ['count', 24],
  /** Who was last seen to use it: a thread, and its descriptor. */
  tid: ['u32', 32],
  fd: ['s32', 36],
  /** The VMM has started the container's log, and not stopped it: what is written to from then on is to be told. */
  started: ['u32', 40],
});

const reading = struct('dirty_reading', 24, { read: ['u32', 0], first: ['count', 8], end: ['count', 16] });

/** Whether it may have devices that are not known here. */
export const Opaque = {
  NO: 0,
  /** There were more than there is room for. */
  TOO_MANY: 1,
  /** A process could not be looked into: nothing that is found out later makes up for it. */
  UNSEEN: 2,
} as const;

/** The place of a device that was asked for and not seen yet, and of one that is not bridged. */
export const UNSEEN = -1;
export const LEFT_ALONE = -2;

/** Ranges that devices log by: what a device can be asked for (LOG_MAX_RANGES of drivers/vfio/vfio_main.c is 256). */
export const MAX_RANGES = 256;
const MAX_OWED = 128;
const MAX_GROUPS = 32;
const MAX_DEVICES = 32;
const GROUP_SIZE = 16;
const NAME_SIZE = 60;
const DEVICE_SIZE = NAME_SIZE + 4;

const GROUPS_AT = head.size;
const DEVICES_AT = GROUPS_AT + MAX_GROUPS * GROUP_SIZE;
const RANGES_AT = DEVICES_AT + MAX_DEVICES * DEVICE_SIZE;
const OWED_AT = RANGES_AT + MAX_RANGES * 16;

/** Bytes that the state of a container takes. */
export const DIRTY_STATE_SIZE = OWED_AT + MAX_OWED * 16;

/** A read of logs that is under way, and what is lost of them if it comes to nothing. It counts at once. */
export type Reading = ReturnType<typeof reading.view>;

export class DirtyState {
  readonly ledger: Ledger;
  readonly head: ReturnType<typeof head.view>;
  readonly reading: Reading;
  readonly ranges: StoredPages;
  /** Pages that are to be told as dirty once more, whatever the logs say, as something was or may have been lost of them. */
  readonly owed: StoredPages;
  readonly groups: Names;
  readonly devices: Names;

  constructor(ledger: Ledger) {
    const { arena, live } = ledger;
    this.ledger = ledger;
    this.head = head.view(arena);
    this.reading = reading.view(live);
    this.ranges = new StoredPages(arena, RANGES_AT, MAX_RANGES);
    this.owed = new StoredPages(arena, OWED_AT, MAX_OWED);
    this.groups = new Names(arena.subarray(GROUPS_AT, DEVICES_AT), GROUP_SIZE);
    this.devices = new Names(arena.subarray(DEVICES_AT, RANGES_AT), DEVICE_SIZE);
  }

  /** Forgets all of an earlier container. */
  startAnew(): void {
    const { opaque } = this.head;
    this.ledger.arena.fill(0);
    this.ledger.live.fill(0);
    if (opaque === Opaque.UNSEEN) this.head.opaque = opaque;
    this.head.used = 1;
  }
}

/** A set of pages in memory, of at most so many ranges; one that has more is kept with its smallest gaps filled (`coalesced`). */
export class StoredPages {
  readonly limit: number;
  readonly #numbers: Float64Array;

  constructor(arena: Uint8Array, at: number, limit: number) {
    this.limit = limit;
    this.#numbers = new Float64Array(arena.buffer, arena.byteOffset + at, 2 * limit);
  }

  get(): PageSet {
    const set: PageRange[] = [];
    for (let n = 0; n < this.limit; n += 1) {
      const first = this.#numbers[2 * n] ?? 0;
      const end = this.#numbers[2 * n + 1] ?? 0;
      if (end === 0) break;
      set.push({ first, end });
    }
    return set;
  }

  set(pages: PageSet): void {
    if (pages.length > this.limit) throw new RangeError(`${pages.length} ranges of pages, ${this.limit} are the limit`);
    this.#numbers.fill(0);
    for (const [n, { first, end }] of pages.entries()) {
      this.#numbers[2 * n] = first;
      this.#numbers[2 * n + 1] = end;
    }
  }
}

/** Names in memory, with a number each in the last four bytes of their room. */
export class Names {
  readonly #memory: Uint8Array;
  readonly #stride: number;

  constructor(memory: Uint8Array, stride: number) {
    this.#memory = memory;
    this.#stride = stride;
  }

  /** Adds a name, or gives it another number. False if there is no room, or the name is too long. */
  put(name: string, number: number): boolean {
    const bytes = Buffer.from(name);
    if (bytes.length === 0 || bytes.length > this.#stride - 5) return false;
    const at = this.#at(name) ?? this.#at('');
    if (at === undefined) return false;
    const entry = this.#memory.subarray(at, at + this.#stride);
    entry.fill(0);
    entry.set(bytes);
    this.#number(at).setInt32(0, number, true);
    return true;
  }

  remove(name: string): void {
    const at = this.#at(name);
    if (at !== undefined) this.#memory.fill(0, at, at + this.#stride);
  }

  has(name: string): boolean {
    return this.#at(name) !== undefined;
  }

  all(): { readonly name: string; readonly number: number }[] {
    return this.#places().flatMap((at) => {
      const name = this.#name(at);
      return name === '' ? [] : [{ name, number: this.#number(at).getInt32(0, true) }];
    });
  }

  #places(): number[] {
    return Array.from({ length: this.#memory.length / this.#stride }, (_, n) => n * this.#stride);
  }

  #at(name: string): number | undefined {
    return this.#places().find((at) => this.#name(at) === name);
  }

  #name(at: number): string {
    const bytes = this.#memory.subarray(at, at + this.#stride - 4);
    return Buffer.from(bytes.subarray(0, bytes.indexOf(0))).toString();
  }

  #number(at: number): DataView {
    return new DataView(this.#memory.buffer, this.#memory.byteOffset + at + this.#stride - 4, 4);
  }
}
