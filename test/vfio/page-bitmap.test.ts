import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { eachPage, movePages, setPage } from '../../src/vfio/page-bitmap.ts';
import { numRuns } from '../support/runs.ts';

const PAGES = 96;
const page = fc.integer({ min: 0, max: PAGES - 1 });
const some = fc.uniqueArray(page, { maxLength: PAGES });
const range = fc.tuple(fc.integer({ min: 0, max: PAGES }), fc.integer({ min: 0, max: PAGES }));

function bitmap(pages: readonly number[]): Uint8Array {
  const bits = new Uint8Array(PAGES / 8);
  for (const each of pages) setPage(bits, each);
  return bits;
}

function pagesOf(bits: Uint8Array, from = 0, to = PAGES): number[] {
  const found: number[] = [];
  eachPage(bits, from, to, (each) => found.push(each));
  return found;
}

const ascending = (pages: Iterable<number>): number[] => [...pages].toSorted((a, b) => a - b);

it('page n is bit n of little-endian u64s', () => {
  const words = new BigUint64Array(3);
  for (const each of [0, 7, 8, 63, 64, 130]) setPage(new Uint8Array(words.buffer), each);
  expect(words).toEqual(new BigUint64Array([(1n << 63n) | 0x181n, 1n, 4n]));
});

it('eachPage visits what is set in a range, in order', () => {
  fc.assert(
    fc.property(some, range, (set, [from, to]) => {
      expect(pagesOf(bitmap(set), from, to)).toEqual(ascending(set.filter((each) => each >= from && each < to)));
    }),
    { numRuns: numRuns() },
  );
});

describe('movePages', () => {
  it('moves what is set in a range to what is set elsewhere, and nothing else', () => {
    fc.assert(
      fc.property(some, some, range, (here, there, [from, to]) => {
        const [one, other] = [bitmap(here), bitmap(there)];
        movePages(one, other, from, to);
        const isMoved = (each: number): boolean => each >= from && each < to;
        expect(pagesOf(one)).toEqual(ascending(here.filter((each) => !isMoved(each))));
        expect(pagesOf(other)).toEqual(ascending(new Set([...there, ...here.filter(isMoved)])));
      }),
      { numRuns: numRuns() },
    );
  });

  it('has each page in one of the two after each of its stores', () => {
    const [one, other] = [bitmap([1, 5, 9, 40, 41, 95]), bitmap([2, 40])];
    const all = ascending(new Set([...pagesOf(one), ...pagesOf(other)]));
    let stores = 0;
    const watched = (bits: Uint8Array): Uint8Array =>
      new Proxy(bits, {
        get: (target, key) => Reflect.get(target, key) as unknown,
        set(target, key, value) {
          const isSet = Reflect.set(target, key, value);
          stores += 1;
          expect(ascending(new Set([...pagesOf(one), ...pagesOf(other)]))).toEqual(all);
          return isSet;
        },
      });
    movePages(watched(one), watched(other), 0, PAGES);
    expect(stores).toBe(8);
    expect(pagesOf(one)).toEqual([]);
  });
});
