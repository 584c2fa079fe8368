import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PageBits } from '../../src/vfio/page-bits.ts';
import { union, type PageRange } from '../../src/vfio/page-ranges.ts';
import { pagesIn } from '../support/dirty-world.ts';

const bitmap = (most: number): fc.Arbitrary<PageBits> =>
  fc.tuple(fc.nat({ max: most }), fc.integer({ min: 1, max: most })).chain(([first, length]) => {
    const range = { first, end: first + length };
    const size = PageBits.sizeOf(range);
    const sometimesWhole = fc.oneof(fc.constant(0), fc.constant(255), fc.nat({ max: 255 }));
    return fc.array(sometimesWhole, { minLength: size, maxLength: size }).map((bytes) => {
      const bits = new PageBits(range);
      bits.bytes.set(bytes);
      return bits;
    });
  });

function common(a: PageRange, b: PageRange): PageRange {
  return { first: Math.max(a.first, b.first), end: Math.min(a.end, b.end) };
}

describe('PageBits', () => {
  it('keeps, of some pages, those that another bitmap has too, however the two lie to each other', () => {
    fc.assert(
      fc.property(bitmap(300), bitmap(300), fc.nat(), fc.nat(), (mine, other, from, length) => {
        const both = common(mine.range, other.range);
        fc.pre(both.first < both.end);
        const first = both.first + (from % (both.end - both.first));
        const pages = { first, end: Math.min(both.end, first + 1 + (length % 200)) };
        const before = pagesIn(mine);
        const others = new Set(pagesIn(other));
        const tail = [...mine.bytes];
        mine.and(other, pages);
        expect(pagesIn(mine)).toEqual(
          before.filter((page) => page < pages.first || page >= pages.end || others.has(page)),
        );
        const behind = mine.range.end - mine.range.first; // bits of no page stay as they are
        for (let n = behind; n < mine.bytes.length * 8; n += 1) {
          expect(((mine.bytes[n >> 3] ?? 0) >> (n & 7)) & 1).toBe(((tail[n >> 3] ?? 0) >> (n & 7)) & 1);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it.each([0, 8, 24, 32, 13])('does so piece by piece, all of whose bits may be set, %i pages apart', (apart) => {
    const length = 3 * 64 * 1024 * 8 + 100; // three pieces and a bit
    const mine = new PageBits({ first: 1000 + apart, end: 1000 + apart + length });
    const other = new PageBits({ first: 1000, end: 1000 + apart + length });
    mine.bytes.fill(255);
    for (let n = 80_000; n < 100_000; n += 3) mine.bytes[n] = n & 255; // in the second piece
    for (let n = 0; n < other.bytes.length; n += 1) other.bytes[n] = (n * 7919) >> 5;
    const bitOf = ({ bytes, range }: PageBits, page: number): number => {
      const n = page - range.first;
      return ((bytes[n >> 3] ?? 0) >> (n & 7)) & 1;
    };
    const expected = new Uint8Array(mine.bytes);
    const pages = { first: mine.range.first + 5, end: mine.range.end - 9 };
    for (let page = pages.first; page < pages.end; page += 1) {
      const n = page - mine.range.first;
      if (bitOf(other, page) === 0) expected[n >> 3] = (expected[n >> 3] ?? 0) & ~(1 << (n & 7));
    }
    mine.and(other, pages);
    expect(mine.bytes).toBeBytes(expected);
  });

  it('lists the pages that are set, of some', () => {
    fc.assert(
      fc.property(bitmap(300), fc.nat(), fc.nat(), (bits, from, length) => {
        const { first: begin, end: last } = bits.range;
        const first = begin + (from % (last - begin));
        const pages = { first, end: Math.min(last, first + 1 + (length % 250)) };
        const listed = [...bits.setIn(pages)];
        const inside = pagesIn(bits).filter((page) => page >= pages.first && page < pages.end);
        expect(listed).toEqual(union(inside.map((page) => ({ first: page, end: page + 1 }))));
      }),
    );
  });

  it('knows pages whose numbers need more than 32 bits', () => {
    const first = 2 ** 40;
    const [mine, other] = [
      new PageBits({ first, end: first + 100 }),
      new PageBits({ first: first - 7, end: first + 200 }),
    ];
    mine.bytes.fill(255);
    other.bytes[(7 + 50) >> 3] = 1 << ((7 + 50) & 7);
    mine.and(other, mine.range);
    expect([...mine.setIn(mine.range)]).toEqual([{ first: first + 50, end: first + 51 }]);
  });
});
