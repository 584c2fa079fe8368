import { ShimError } from '../../error.ts';
import { sleepUntilReady, whenReady, type WaitForDevice } from '../../wait.ts';
import type { DraftDevice } from './device.ts';
import { DraftAccess } from './registers.ts';

/** The page by which November 2018 counts: the guest's. */
export const DRAFT_PAGE = 4096;

/** Pages of memory, by their first one's number. */
export interface PageRange {
  /** The number of the first page: its address divided by `pageSize`. */
  readonly first: number;
  /** How many. */
  readonly pages: number;
  /** In bytes. */
  readonly pageSize: number;
}

/** Is told of pieces of a range, in order: bit n of the little-endian bitmap is the n-th page from `first` on. */
export type DirtySink = (first: number, pages: number, bitmap: Uint8Array) => void;

/**
 * How many pages of bitmap a data section shows at once: a u64 less than it has room for, since the published VMMs take a bitmap of n
 * pages for one u64 longer than it is, and look elsewhere if that does not fit.
 */
export function mostPages(sectionSize: number): number {
  return Math.max(0, Math.floor(sectionSize / 8) - 1) * 64;
}

/**
 * How a VMM asks which pages a device has dirtied (vfio_get_dirty_page_list in the patches of October 2018 and February 2019). A piece
 * without dirty pages is 0 pages long, and ends it.
 */
export function readDirtyPages(
  device: DraftDevice,
  range: PageRange,
  sink: DirtySink,
  wait: WaitForDevice = sleepUntilReady,
): void {
  const copied = device.draft === 'draft-2018' ? begin2018(device, range, wait) : begin2019(device, range, wait);
  for (let count = 0; count < range.pages;) {
    const pages = whenReady(copied, wait);
    if (pages === 0) return;
    if (pages > range.pages - count || pages > mostPages(device.dataSection.size)) {
      throw new ShimError(
        'ERR_DEVICE',
        `${device.draft} driver: shows ${pages} pages, ${range.pages - count} are left`,
        {
          errno: 'EIO',
        },
      );
    }
    sink(range.first + count, pages, device.mapped.subarray(0, Math.ceil(pages / 64) * 8));
    count += pages;
  }
}

function begin2018(device: DraftDevice, { first, pages, pageSize }: PageRange, wait: WaitForDevice): () => number {
  if (pageSize !== DRAFT_PAGE) {
    throw new ShimError('ERR_ARGUMENT', `draft-2018: pages of ${pageSize} bytes; it has ${DRAFT_PAGE}`);
  }
  const registers = new DraftAccess(device, 'draft-2018');
  whenReady(() => registers.write('dirty_pfns_start_addr', first * pageSize), wait);
  whenReady(() => registers.write('dirty_pfns_total', pages), wait);
  return () => registers.count('dirty_pfns_copied');
}

function begin2019(device: DraftDevice, { first, pages, pageSize }: PageRange, wait: WaitForDevice): () => number {
  const registers = new DraftAccess(device, 'draft-2019');
  whenReady(() => registers.write('start_pfn', first), wait);
  whenReady(() => registers.write('page_size', pageSize), wait);
  whenReady(() => registers.write('total_pfns', pages), wait);
  return () => registers.count('copied_pfns');
}
