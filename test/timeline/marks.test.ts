import fc from 'fast-check';
import { expect, it } from 'vitest';
import { Marks, type Mark } from '../../src/timeline/marks.ts';
import { numRuns } from '../support/runs.ts';

const mark = (begin: number, end = begin + 1): Mark => ({
  begin,
  end,
  calls: 1,
  busy: 1,
  out: 2,
  in: 3,
  moved: begin,
  text: 'x',
});

const total = (marks: readonly Mark[], key: 'calls' | 'busy' | 'out' | 'in'): number =>
  marks.reduce((sum, each) => sum + each[key], 0);

it('keeps marks as they are while there are few', () => {
  const marks = new Marks(3);
  for (const begin of [1, 5, 100]) marks.add(mark(begin));
  expect(marks.list).toEqual([mark(1), mark(5), mark(100)]);
});

it('joins those that are close together, and leaves those that stand alone', () => {
  const marks = new Marks(4);
  for (const begin of [0, 1_000_000, 1_000_002, 1_000_004, 2_000_000]) marks.add(mark(begin));
  expect(marks.list.map(({ begin, calls, text }) => [begin, calls, text])).toEqual([
    [0, 1, 'x'],
    [1_000_000, 2, ''],
    [1_000_004, 1, 'x'],
    [2_000_000, 1, 'x'],
  ]);
  expect(marks.list[1]).toEqual({
    begin: 1_000_000,
    end: 1_000_003,
    calls: 2,
    busy: 2,
    out: 4,
    in: 6,
    moved: 1_000_002,
    text: '',
  });
});

it('loses nothing, and is bounded, for times of any order and size', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.maxSafeNat(), fc.maxSafeNat()), { maxLength: 60 }),
      fc.integer({ min: 1, max: 9 }),
      (times, limit) => {
        const marks = new Marks(limit);
        for (const [begin, length] of times) marks.add(mark(begin, begin + length));
        expect(marks.list.length).toBeLessThanOrEqual(limit);
        expect(total(marks.list, 'calls')).toBe(times.length);
        expect(total(marks.list, 'busy')).toBe(times.length);
        expect(total(marks.list, 'out')).toBe(2 * times.length);
        expect(total(marks.list, 'in')).toBe(3 * times.length);
        expect(Math.min(...marks.list.map(({ begin }) => begin))).toBe(Math.min(...times.map(([begin]) => begin)));
      },
    ),
    { numRuns: numRuns() },
  );
});
