import { describe, expect, test } from 'vitest';
import { isV1State, isV1Transition, V1, v1StateName, withoutReserved, type V1State } from '../../src/v1/states.ts';

const shown: readonly V1State[] = [0, 1, 2, 3, 4, 6];

/** Rows: the state that the device is in. Columns: the value written, 0 to 7. 1 is taken, 0 refused. */
const table: Readonly<Record<V1State, string>> = {
  0: '11111000',
  1: '11111000',
  2: '11100000',
  3: '11110000',
  4: '11001000',
  6: '00000000',
};

describe('V1', () => {
  test('names the combinations of bits that have a meaning', () => {
    expect(V1).toEqual({ STOP: 0, RUNNING: 1, STOP_COPY: 2, PRE_COPY: 3, RESUMING: 4, ERROR: 6 });
    expect([0, 1, 2, 3, 4, 5, 6, 7, 8, -1].map((value) => isV1State(value))).toEqual([
      true,
      true,
      true,
      true,
      true,
      false,
      true,
      false,
      false,
      false,
    ]);
  });

  test.each([
    [3, 'PRE_COPY'],
    [5, '(5)'],
    [7, '(7)'],
    [9, '(9)'],
  ])('v1StateName of %i is %s', (value, name) => {
    expect(v1StateName(value)).toBe(name);
  });

  test.each([
    [0xffff_ffff, 7],
    [0x8000_0001, 1],
    [0xffff_fff8, 0],
    [6, 6],
  ])('withoutReserved of %i is %i', (value, bits) => {
    expect(withoutReserved(value)).toBe(bits);
  });
});

describe('isV1Transition', () => {
  const cases = shown.flatMap((from) =>
    [...(table[from] ?? '')].map((taken, to) => ({ from, to, taken: taken === '1' })),
  );
  test.each(cases)('from $from to $to is $taken', ({ from, to, taken }) => {
    expect(isV1Transition(from, to)).toBe(taken);
  });

  test.each([8, 9, 0x8000_0001, 0xffff_ffff, -1, 1.5, Number.NaN])('refuses %d from everywhere', (value) => {
    expect(shown.map((from) => isV1Transition(from, value))).toEqual(shown.map(() => false));
  });
});
