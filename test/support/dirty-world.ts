import { ShimError } from '../../src/error.ts';
import { bitmapSize, type DirtyBitmap, type DmaLog, type IovaRange } from '../../src/vfio/dma-log.ts';
import type { DirtyContainer } from '../../src/vfio/dirty-container.ts';
import { setPage } from '../../src/vfio/page-bitmap.ts';
import type { PageBits } from '../../src/vfio/page-bits.ts';
import { union, within, type PageRange, type PageSet } from '../../src/vfio/page-ranges.ts';
import { failed } from './byte-port.ts';

/** A supervisor is killed: nothing that it was about to do is done. */
export class Killed extends Error {}

/** What may happen at a call on a log. */
export type Mishap = 'EIO' | 'EINVAL' | 'EOPNOTSUPP' | 'killed before' | 'killed after';

/**
 * A type1 container with real hardware in it, as drivers/vfio/vfio_iommu_type1.c of Linux 6.12 answers for it: all that is mapped is
 * dirty at each look (update_user_bitmap), holes are left as they were, and a range must not cut a mapping (vfio_iova_dirty_bitmap).
 */
export class HardwareContainer implements DirtyContainer {
  readonly pageSize: bigint;
  mappings: PageSet;
  isLogging = false;

  constructor(mappings: PageSet, pageSize = 4096n) {
    this.pageSize = pageSize;
    this.mappings = mappings;
  }

  start(): void {
    this.isLogging = true;
  }

  read(into: PageBits): void {
    if (!this.isLogging) throw failed('EINVAL');
    const { first, end } = into.range;
    for (const mapping of this.mappings) {
      const [inside] = within([mapping], into.range);
      if (inside === undefined) continue;
      if (inside.first !== mapping.first || inside.end !== mapping.end) throw failed('EINVAL');
    }
    for (let page = first; page < end; page += 1) if (isIn(this.mappings, page)) setPage(into.bytes, page - first);
  }

  mapped(): PageSet {
    if (!this.isLogging) throw failed('EINVAL');
    return this.mappings;
  }
}

/** How a driver keeps its log. */
export interface LogHabits {
  /** Pages by which a REPORT is answered: one that begins in the midst of them takes neighbours' bits with it (pds, dirty.c). */
  readonly word: number;
  /** A REPORT must lie in one of the ranges that were started (pds). */
  readonly inOneRange: boolean;
  /** How many ranges are taken: E2BIG beyond (vfio_main.c), or EOPNOTSUPP. */
  readonly maxRanges: number;
}

export const EXACT: LogHabits = { word: 1, inOneRange: false, maxRanges: 256 };
export const LIKE_PDS: LogHabits = { word: 64, inOneRange: true, maxRanges: 256 };

/** A driver's log that is exact for what its ranges cover. */
export class SimLog implements DmaLog {
  readonly habits: LogHabits;
  /** Bytes of a page that it logs by. */
  readonly pageSize: bigint;
  ranges: readonly PageRange[] | undefined;
  readonly dirty = new Set<number>();
  /** What happens at the calls to come. */
  mishaps: (Mishap | undefined)[] = [];
  calls = 0;

  constructor(habits = EXACT, pageSize = 4096n) {
    this.habits = habits;
    this.pageSize = pageSize;
  }

  /** The device writes to a page. */
  wrote(page: number): void {
    if (this.ranges !== undefined && isIn(this.ranges, page)) this.dirty.add(page);
  }

  start(ranges: readonly IovaRange[]): bigint {
    this.#meet(() => {
      if (this.ranges !== undefined) throw failed('EINVAL');
      if (ranges.length > this.habits.maxRanges) throw failed('EOPNOTSUPP');
      this.ranges = ranges.map((range) => this.#pagesOf(range));
      if (union(this.ranges).length > ranges.length) throw failed('EINVAL');
      this.dirty.clear();
    });
    return this.pageSize;
  }

  stop(): void {
    if (this.ranges === undefined) throw failed('EINVAL');
    this.ranges = undefined;
    this.dirty.clear();
  }

  readAndClear({ iova, length }: IovaRange, { pageSize, bits }: DirtyBitmap): void {
    this.#meet(() => {
      const { ranges } = this;
      const asked = this.#pagesOf({ iova, length });
      if (ranges === undefined || length === 0n || pageSize !== this.pageSize) throw failed('EINVAL');
      if (bits.length < bitmapSize({ iova, length }, pageSize)) throw new RangeError('a bitmap that is too short');
      const range = ranges.find(({ first, end }) => first <= asked.first && asked.end <= end);
      if (range === undefined && this.habits.inOneRange) throw failed('EINVAL');
      const { word } = this.habits;
      const base = range?.first ?? 0;
      const from = base + Math.floor((asked.first - base) / word) * word;
      const to = base + Math.ceil((asked.end - base) / word) * word;
      for (const page of this.dirty) {
        if (page < from || page >= to) continue;
        if (page >= asked.first && page < asked.end) setPage(bits, page - asked.first);
        this.dirty.delete(page); // of neighbours too, of which nobody is told
      }
    });
  }

  #pagesOf({ iova, length }: IovaRange): PageRange {
    const { pageSize } = this;
    if ((iova | length) % pageSize !== 0n) throw new ShimError('ERR_SYSCALL', 'unaligned', { errno: 'EINVAL' });
    return { first: Number(iova / pageSize), end: Number((iova + length) / pageSize) };
  }

  #meet(work: () => void): void {
    this.calls += 1;
    const mishap = this.mishaps.shift();
    if (mishap === 'killed before') throw new Killed();
    if (mishap === 'EIO' || mishap === 'EINVAL' || mishap === 'EOPNOTSUPP') throw failed(mishap);
    work();
    if (mishap === 'killed after') throw new Killed();
  }
}

export function isIn(pages: readonly PageRange[], page: number): boolean {
  return pages.some(({ first, end }) => first <= page && page < end);
}

/** The pages whose bits are set. */
export function pagesIn({ range, bytes }: PageBits): number[] {
  const pages: number[] = [];
  for (let page = range.first; page < range.end; page += 1) {
    const n = page - range.first;
    if ((((bytes[n >> 3] ?? 0) >> (n & 7)) & 1) !== 0) pages.push(page);
  }
  return pages;
}
