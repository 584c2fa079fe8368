import { ShimError } from '../error.ts';
import { mostPages } from '../v1/drafts/dirty.ts';
import type { PresentDraftState } from './present-draft-state.ts';
import type { Warn } from './warn.ts';

/** A range of memory as the device knows it, in bytes. */
export interface DirtyRange {
  /** Its first I/O virtual address. */
  readonly iova: bigint;
  readonly length: bigint;
}

/** Who knows which memory a device has written to: a log of its DMA, or the container. */
export interface DirtyPages {
  /** Writes are to be noted from now on. */
  begin(): void;
  /** Writes need not be noted any more. */
  end(): void;
  /**
   * The user asks about a range, in pieces that follow. False if it is not known what was written to there: all of it then counts
   * as dirty. Absent if all of the memory is known.
   */
  covers?(range: DirtyRange): boolean;
  /** The user was told that all of a range is dirty, to its last piece. */
  toldAll?(range: DirtyRange): void;
  /** Sets the bits of pages that were written to since this was last asked, and clears none. If it throws, all pages may be dirty. */
  readAndClear(range: DirtyRange, into: { readonly pageSize: bigint; readonly bits: Uint8Array }): void;
}

const ADDRESSES = 2n ** 64n;
const SMALLEST_PAGE = 4096n;
const LARGEST_PAGE = 2n ** 30n;

/**
 * The dirty pages of a presented draft: a range of memory, told in pieces that fit the data section. If nobody knows, or a log
 * has failed, all of it is dirty.
 */
export class DraftDirty {
  readonly #section: Uint8Array;
  readonly #my: PresentDraftState;
  readonly #pages: DirtyPages | undefined;
  readonly #warn: Warn | undefined;

  constructor(section: Uint8Array, my: PresentDraftState, pages: DirtyPages | undefined, warn: Warn | undefined) {
    this.#section = section;
    this.#my = my;
    this.#pages = pages;
    this.#warn = warn;
  }

  begin(): void {
    const my = this.#my;
    if (my.logging === 1) return;
    my.log_lost = 0;
    try {
      this.#pages?.begin();
    } catch (error) {
      this.#fail(error);
    }
    my.logging = 1;
  }

  end(): void {
    const my = this.#my;
    if (my.logging === 0) return;
    my.logging = 0;
    try {
      this.#pages?.end();
    } catch (error) {
      this.#warn?.(`the log of dirty pages does not end: ${textOf(error)}`);
    }
  }

  /** The range that is asked about has changed. */
  restart(): void {
    this.#my.dirty_cursor = 0n;
  }

  /**
   * Puts the next piece's bitmap into the data section and returns its pages; 0 if no page of what is left is dirty. A piece without
   * dirty pages that others follow is told, as a 0 would end the user's loop.
   */
  copied(first: bigint): bigint {
    const my = this.#my;
    if (my.logging === 0) return 0n;
    const { dirty_total: total, dirty_page: page } = my;
    if (first % page !== 0n || total > (ADDRESSES - first) / page) {
      throw bad(`${total} pages of ${page} bytes from ${first} on`);
    }
    const left = total - my.dirty_cursor;
    const most = BigInt(mostPages(this.#section.length));
    const pages = left < most ? left : most;
    if (pages === 0n) return 0n;
    const whole = { iova: first, length: total * page };
    if (my.dirty_cursor === 0n) my.dirty_known = this.#isKnown(whole) ? 1 : 0;
    const bits = this.#section.subarray(0, Number((pages + 63n) / 64n) * 8);
    my.in_section = 0; // what lay there was set aside
    bits.fill(0);
    this.#read({ iova: first + my.dirty_cursor * page, length: pages * page }, { pageSize: page, bits }, Number(pages));
    my.dirty_cursor += pages;
    if (my.dirty_cursor === total && my.dirty_known === 0) this.#pages?.toldAll?.(whole);
    const isClean = bits.every((byte) => byte === 0);
    return isClean && my.dirty_cursor === total ? 0n : pages;
  }

  #isKnown(range: DirtyRange): boolean {
    const pages = this.#pages;
    if (pages === undefined || this.#my.log_lost === 1) return false;
    try {
      return pages.covers?.(range) ?? true;
    } catch (error) {
      this.#fail(error);
      return false;
    }
  }

  #read(range: DirtyRange, into: { pageSize: bigint; bits: Uint8Array }, pages: number): void {
    if (this.#pages !== undefined && this.#my.dirty_known === 1) {
      try {
        this.#pages.readAndClear(range, into);
        return;
      } catch (error) {
        this.#fail(error);
      }
    }
    const whole = Math.floor(pages / 8);
    into.bits.fill(0);
    into.bits.fill(0xff, 0, whole);
    if (pages % 8 > 0) into.bits[whole] = 2 ** (pages % 8) - 1;
  }

  #fail(error: unknown): void {
    this.#my.log_lost = 1;
    this.#my.dirty_known = 0;
    this.#warn?.(`dirty pages are not logged, all of the memory counts as dirty: ${textOf(error)}`);
  }
}

/** A page size that the user has written. Throws `EINVAL` for one that none is. */
export function checkedPage(size: bigint): bigint {
  if (size >= SMALLEST_PAGE && size <= LARGEST_PAGE && (size & (size - 1n)) === 0n) return size;
  throw bad(`pages of ${size} bytes`);
}

function bad(what: string): ShimError {
  return new ShimError('ERR_ACCESS', `migration region: dirty pages: ${what}`, { errno: 'EINVAL' });
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
