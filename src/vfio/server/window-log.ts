import type { DirtyBitmap, IovaRange } from '../dma-log.ts';
import { eachPage, movePages, setPage } from '../page-bitmap.ts';

/** Bytes of the pages that a log counts by. */
export const LOG_PAGE = 4096;
/** The most pages of a window. */
export const WINDOW_PAGES = 2 ** 20;
const BITMAP_SIZE = WINDOW_PAGES / 8;

/** Bytes of memory that a `WindowLog` takes. */
export const WINDOW_LOG_SIZE = 2 * BITMAP_SIZE;

/** Whole pages of I/O virtual addresses from `iova` on, up to `WINDOW_PAGES`; with 0 there is no window yet. */
export interface LogWindow {
  readonly iova: number;
  readonly pages: number;
}

/**
 * Which pages of a window were written to, in memory that outlives this process, with a bitmap of those that nobody was told of and
 * one of those that the latest answer tells. A page is in the second before it leaves the first, and stays there until somebody
 * asks again, who has got that answer. So whoever takes over tells once more what the answer may not have told.
 */
export class WindowLog {
  readonly #fresh: Uint8Array;
  readonly #told: Uint8Array;
  readonly #window: LogWindow;

  /** `memory` has `WINDOW_LOG_SIZE` bytes, zeros in the beginning; `window` says where it is now. */
  constructor(memory: Uint8Array, window: LogWindow) {
    this.#fresh = memory.subarray(0, BITMAP_SIZE);
    this.#told = memory.subarray(BITMAP_SIZE, WINDOW_LOG_SIZE);
    this.#window = window;
    this.giveBack();
  }

  /** The n-th page of the window is written to. */
  note(page: number): void {
    setPage(this.#fresh, page);
  }

  clear(): void {
    this.#fresh.fill(0);
    this.#told.fill(0);
  }

  /** What was written to in a range is now to be told, and nothing else. */
  collect(range: IovaRange): void {
    this.#told.fill(0, 0, Math.ceil(this.#window.pages / 8));
    movePages(this.#fresh, this.#told, ...this.#pagesOf(range));
  }

  /**
   * Sets the bits of what was collected, of that range or of a part of it, in a bitmap that begins where `range` does. False if there
   * is nothing to tell.
   */
  tell(range: IovaRange, { pageSize, bits }: DirtyBitmap): boolean {
    const [from, to] = this.#pagesOf(range);
    const skipped = BigInt(this.#window.iova) - range.iova;
    let tells = false;
    eachPage(this.#told, from, to, (page) => {
      const at = skipped + BigInt(page * LOG_PAGE);
      setPage(bits, Number((at < 0n ? 0n : at) / pageSize));
      tells = true;
    });
    return tells;
  }

  /** The range's part that lies in the window, to whole pages of the window; its length may be 0. */
  within(range: IovaRange): IovaRange {
    const [from, to] = this.#pagesOf(range);
    const at = (page: number): bigint => BigInt(this.#window.iova + page * LOG_PAGE);
    return { iova: at(from), length: at(to) - at(from) };
  }

  /** Nobody was told: it is to be told anew. */
  giveBack(): void {
    movePages(this.#told, this.#fresh, 0, WINDOW_PAGES);
  }

  /** The pages of the window that a range touches, the last one not included. */
  #pagesOf({ iova, length }: IovaRange): [from: number, to: number] {
    const { iova: begin, pages } = this.#window;
    const offset = iova - BigInt(begin);
    const clipped = (page: bigint): number => Math.max(0, Math.min(pages, Number(page)));
    const page = BigInt(LOG_PAGE);
    // of a range that begins before the window, the quotient of its beginning is rounded to 0, or to what is clipped
    const from = clipped(offset / page);
    return [from, Math.max(from, clipped((offset + length + page - 1n) / page))];
  }
}
