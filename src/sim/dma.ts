import { struct } from '../abi/struct.ts';

/*
 * The DMA of a simulated device: which page of the memory that it can reach it writes to next, what it writes there, and when. All of
 * it follows from the SPEC's seed, the device's place in the run and a counter, so whoever sees the memory can check it.
 */

export const DMA_PAGE = 4096;

/** The most bytes that a window may have: a log of DMA has a bit for each of its pages. */
export const DMA_WINDOW_LIMIT = 2 ** 32;

/** Where a device writes: whole pages of I/O virtual addresses. */
export interface DmaWindow {
  readonly at: number;
  readonly size: number;
}

/** What a device writes to the beginning of a page. The rest of the page stays as it is, or becomes what that of another page is. */
export const dma_record = struct('dma_record', 32, {
  magic: ['u64', 0],
  /** Of the page. */
  iova: ['count', 8],
  /** How many pages the device has written before, since its user opened it. */
  counter: ['count', 16],
  seed: ['u32', 24],
  /** The device's place in the run, from 0. */
  device: ['u32', 28],
});

/** "vfio-dma" in memory. */
export const DMA_MAGIC = 0x616d_642d_6f69_6676n;

/** Who writes. */
export interface DmaWriter {
  readonly seed: number;
  readonly device: number;
}

/** The page, of so many, that a device writes to when it has written `counter` pages before. */
export function dmaPage({ seed, device }: DmaWriter, counter: number, pages: number): number {
  const own = mixed(seed + Math.imul(device + 1, GOLDEN));
  const drawn = mixed(mixed(own ^ Math.floor(counter / 2 ** 32)) ^ (counter % 2 ** 32));
  return Math.floor((drawn / 2 ** 32) * pages);
}

/** The page, of so many, that a device which copies has read for a write: one after the other. */
export function dmaSourcePage(counter: number, pages: number): number {
  return counter % pages;
}

/** The record of a write, into `bytes`. */
export function encodeDmaRecord(writer: DmaWriter, counter: number, iova: number, bytes: Uint8Array): void {
  dma_record.encode({ magic: DMA_MAGIC, iova, counter, ...writer }, bytes);
}

/**
 * Where a device writes if nobody says: from the middle of a mapping on, a quarter of it, 4 GiB at most. If that is the guest's
 * memory, SeaBIOS has its tables at the end, and kernels are loaded to the beginning. No page is too small a mapping's.
 */
export function defaultWindow({ at, size }: DmaWindow): DmaWindow {
  return { at: at + pagesDown(size / 2), size: Math.min(DMA_WINDOW_LIMIT, pagesDown(size / 4)) };
}

/** Milliseconds from one burst to the next, at least: each wakes the supervisor. */
const TICK = 2;
/** The most pages of one burst: a call of the VMM's may have to wait for it. */
const MOST = 256;
/** A burst makes up for so many milliseconds at most; what is late beyond that is left out. */
const CATCHES_UP = 20;

/** When a device writes: `rate` pages a second at most, in bursts. Times are in milliseconds. */
export class DmaPace {
  readonly #interval: number;
  readonly #burst: number;
  /** Up to when pages have been written; none is due yet if that is not known. */
  #upTo: number | undefined;

  constructor(rate: number) {
    this.#interval = 1000 / rate;
    this.#burst = Math.max(1, Math.min(MOST, Math.floor(CATCHES_UP / this.#interval)));
  }

  /** How many pages are to be written now. */
  due(now: number): number {
    if (this.#upTo === undefined) this.#upTo = now;
    const late = Math.floor((now - this.#upTo) / this.#interval);
    if (late <= this.#burst) {
      this.#upTo += late * this.#interval;
      return late;
    }
    this.#upTo = now;
    return this.#burst;
  }

  /** When to ask again, after due(now). */
  next(now: number): number {
    return Math.max((this.#upTo ?? now) + this.#interval, now + TICK);
  }

  /** The device may not write: nothing is owed for the time until due() is asked again. */
  pause(): void {
    this.#upTo = undefined;
  }
}

const GOLDEN = 0x9e37_79b9;

/** A bijection of 32-bit numbers, in which each bit depends on all others (the finalizer of MurmurHash3, by Austin Appleby). */
function mixed(number: number): number {
  let x = number >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x85eb_ca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2_ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

function pagesDown(bytes: number): number {
  return Math.floor(bytes / DMA_PAGE) * DMA_PAGE;
}
