import * as fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { cleanBitmap, type IovaRange } from '../../../src/vfio/dma-log.ts';
import { WINDOW_LOG_SIZE, WINDOW_PAGES, WindowLog } from '../../../src/vfio/server/window-log.ts';
import { numRuns, PROPERTY_TIMEOUT } from '../../support/runs.ts';

const PAGE = 4096n;
const BEGIN = 0x10_0000;
const PAGES = 40;

const window = { iova: BEGIN, pages: PAGES };
let memory: Uint8Array;
let log: WindowLog;

beforeEach(() => {
  Object.assign(window, { iova: BEGIN, pages: PAGES });
  memory = new Uint8Array(WINDOW_LOG_SIZE);
  log = new WindowLog(memory, window);
});

/** A range, by pages of the window. */
const pages = (from: number, count: number): IovaRange => ({
  iova: BigInt(BEGIN) + BigInt(from) * PAGE,
  length: BigInt(count) * PAGE,
});

/** The bits that are told for a range, by number. */
function told(range: IovaRange, pageSize = PAGE, of = log): number[] {
  const into = cleanBitmap(range, pageSize);
  of.tell(range, into);
  return Array.from({ length: into.bits.length * 8 }, (_, n) => n).filter(
    (n) => (((into.bits[n >> 3] ?? 0) >> (n & 7)) & 1) === 1,
  );
}

describe('the log of a window', () => {
  it('tells what was written to in a range, once', () => {
    for (const page of [0, 3, 9, 39]) log.note(page);
    log.collect(pages(1, 10));
    expect(told(pages(1, 10))).toEqual([2, 8]);
    log.collect(pages(0, PAGES));
    expect(told(pages(0, PAGES))).toEqual([0, 39]);
    log.collect(pages(0, PAGES));
    expect(told(pages(0, PAGES))).toEqual([]);
  });

  it('has nothing to tell of ranges outside, wherever they are', () => {
    for (let page = 0; page < PAGES; page += 1) log.note(page);
    for (const range of [
      pages(PAGES, 100),
      { iova: 0n, length: BigInt(BEGIN) },
      { iova: 2n ** 63n, length: 2n ** 62n },
      pages(5, 0),
      { iova: BigInt(BEGIN), length: 0n },
    ]) {
      log.collect(range);
      expect(log.tell(range, { pageSize: PAGE, bits: new Uint8Array(0) })).toBe(false);
      expect(log.within(range).length).toBe(0n);
    }
    const all = { iova: 0n, length: 2n ** 64n - 1n };
    expect(log.within(all)).toEqual(pages(0, PAGES));
    log.collect(all);
    expect(told(pages(0, PAGES))).toHaveLength(PAGES);
  });

  it('has its bits where the range begins, for pages of any size', () => {
    for (const page of [5, 6, 7, 31]) log.note(page);
    const range = pages(-16, 100);
    log.collect(range);
    expect(told(range, 16n * PAGE)).toEqual([1, 2]);
    expect(told(range, 2n ** 40n)).toEqual([0]);
    expect(told(pages(4, 4))).toEqual([1, 2, 3]);
    // the range begins within a page that was written to
    expect(told({ iova: BigInt(BEGIN) + 5n * PAGE + 100n, length: 2n * PAGE })).toEqual([0, 1]);
  });

  it('tells anew what was given back', () => {
    log.note(3);
    log.collect(pages(0, PAGES));
    log.note(4);
    log.giveBack();
    log.collect(pages(0, PAGES));
    expect(told(pages(0, PAGES))).toEqual([3, 4]);
  });

  it('forgets when it is cleared', () => {
    log.note(3);
    log.collect(pages(0, PAGES));
    log.note(4);
    log.clear();
    log.giveBack();
    log.collect(pages(0, PAGES));
    expect(told(pages(0, PAGES))).toEqual([]);
  });

  it('has room for the largest window, and none is there before it is known', () => {
    window.pages = 0;
    log.collect(pages(0, PAGES));
    expect(told(pages(0, PAGES))).toEqual([]);
    window.pages = WINDOW_PAGES;
    log.note(WINDOW_PAGES - 1);
    const last = pages(WINDOW_PAGES - 1, 1);
    log.collect(last);
    expect(told(last)).toEqual([0]);
  });

  it(
    'loses no page, whenever a process takes over, and tells none that was not written to',
    { timeout: PROPERTY_TIMEOUT },
    () => {
      const page = fc.integer({ min: 0, max: PAGES - 1 });
      const step = fc.oneof(
        { weight: 4, arbitrary: fc.record({ kind: fc.constant('write' as const), at: page, count: page }) },
        { weight: 3, arbitrary: fc.record({ kind: fc.constant('ask' as const), at: page, count: page }) },
        { weight: 1, arbitrary: fc.record({ kind: fc.constant('ask, killed' as const), at: page, count: page }) },
        { weight: 1, arbitrary: fc.record({ kind: fc.constant('killed' as const), at: page, count: page }) },
      );
      fc.assert(
        fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
          const own = new Uint8Array(WINDOW_LOG_SIZE);
          let current = new WindowLog(own, window);
          /** Pages that nobody has been told of; those of the latest answer; and what a process that took over may tell again. */
          const owed = new Set<number>();
          let latest = new Set<number>();
          const again = new Set<number>();
          const takeOver = (): void => {
            current = new WindowLog(own, window);
            for (const each of latest) again.add(each);
          };
          for (const { kind, at, count } of steps) {
            if (kind === 'write') {
              current.note(at);
              owed.add(at);
            } else if (kind === 'killed') takeOver();
            else {
              const range = pages(at, count);
              current.collect(range);
              if (kind === 'ask, killed') {
                current = new WindowLog(own, window);
                current.collect(range);
              }
              const answer = new Set(told(range, PAGE, current).map((n) => at + n));
              const asked = (each: number): boolean => each >= at && each < at + count;
              for (const each of owed) expect(!asked(each) || answer.has(each), `page ${each}`).toBe(true);
              for (const each of answer) expect(owed.has(each) || again.has(each), `page ${each}`).toBe(true);
              for (const each of answer) {
                owed.delete(each);
                again.delete(each);
              }
              latest = answer;
            }
          }
        }),
        { numRuns: numRuns() },
      );
    },
  );
});
