import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  coalesced,
  roundedOut,
  union,
  within,
  without,
  type PageRange,
  type PageSet,
} from '../../src/vfio/page-ranges.ts';

const END = 60;
const range = fc
  .tuple(fc.nat({ max: END }), fc.nat({ max: 12 }))
  .map(([first, length]): PageRange => ({ first, end: Math.min(END, first + length) }));
const ranges = fc.array(range, { maxLength: 8 });
const set = ranges.map((list) => union(list));

/** A picture of the pages: one character each. */
function drawn(list: readonly PageRange[]): string {
  return Array.from({ length: END }, (_, page) =>
    list.some(({ first, end }) => first <= page && page < end) ? 'x' : '.',
  ).join('');
}

function expectSet(pages: PageSet): void {
  for (const [n, { first, end }] of pages.entries()) {
    expect(first).toBeLessThan(end);
    expect(first).toBeGreaterThan(pages[n - 1]?.end ?? -1);
  }
}

describe('page ranges', () => {
  it('joins ranges that overlap or touch', () => {
    fc.assert(
      fc.property(ranges, ranges, (a, b) => {
        const both = union(a, b);
        expectSet(both);
        expect(drawn(both)).toBe(drawn([...a, ...b]));
      }),
    );
  });

  it('takes the part within a range, and what another set does not have', () => {
    fc.assert(
      fc.property(set, set, range, (a, b, part) => {
        const inside = within(a, part);
        const rest = without(a, b);
        expectSet(inside);
        expectSet(rest);
        const [pictureOfA, pictureOfB, ofPart] = [drawn(a), drawn(b), drawn([part])];
        expect(drawn(inside)).toBe(pictureOfA.replaceAll('x', (_, n: number) => ofPart[n] ?? ''));
        expect(drawn(rest)).toBe(pictureOfA.replaceAll('x', (_, n: number) => (pictureOfB[n] === 'x' ? '.' : 'x')));
      }),
    );
  });

  it('rounds out to whole units', () => {
    fc.assert(
      fc.property(set, fc.integer({ min: 1, max: 7 }), (a, unit) => {
        const rounded = roundedOut(a, unit);
        expectSet(rounded);
        for (const { first, end } of rounded) expect([first % unit, end % unit]).toEqual([0, 0]);
        expect(drawn(without(a, rounded))).toBe('.'.repeat(END));
        const grown = rounded.reduce((sum, { first, end }) => sum + end - first, 0);
        const had = a.reduce((sum, { first, end }) => sum + end - first, 0);
        expect(grown - had).toBeLessThanOrEqual(2 * unit * a.length);
      }),
    );
  });

  it('fills the smallest gaps if there are too many ranges', () => {
    fc.assert(
      fc.property(set, fc.integer({ min: 1, max: 4 }), (a, limit) => {
        const fewer = coalesced(a, limit);
        expectSet(fewer);
        expect(fewer.length).toBeLessThanOrEqual(Math.max(limit, 1));
        expect(without(a, fewer)).toEqual([]);
        if (a.length <= limit) expect(fewer).toEqual(a);
        const filled = without(fewer, a).map(({ first, end }) => end - first);
        const left = fewer.slice(1).map(({ first }, n) => first - (fewer[n]?.end ?? 0));
        expect(Math.max(0, ...filled)).toBeLessThan(Math.min(Infinity, ...left));
      }),
    );
  });
});
