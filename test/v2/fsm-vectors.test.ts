import { describe, expect, test } from 'vitest';
import { nextState, statePath } from '../../src/v2/fsm.ts';
import { V2, type V2StateName } from '../../src/v2/states.ts';
import { outcome } from '../support/errno.ts';
import { vector } from '../support/vectors.ts';

type Answers = Record<string, Record<V2StateName, Record<V2StateName, V2StateName | null>>>;

/** What vfio_mig_get_next_state() of Linux 6.12 answered when it was run. */
const answers = JSON.parse(vector('fsm-next-state.json')) as Answers;
const entries = Object.entries(answers).flatMap(([flags, rows]) =>
  Object.entries(rows).flatMap(([current, row]) =>
    Object.entries(row).map(([target, hop]) => ({
      flags: Number(flags),
      current: current as V2StateName,
      target: target as V2StateName,
      hop,
    })),
  ),
);

describe('nextState', () => {
  test('is compared with 256 answers of the kernel', () => {
    expect(entries).toHaveLength(256);
    expect(new Set(entries.map(({ flags }) => flags))).toEqual(new Set([1, 3, 5, 7]));
    expect(entries.filter(({ hop }) => hop !== null).length).toBeGreaterThan(100);
  });

  test.each(entries)('answers as the kernel does: flags $flags, $current to $target is $hop', (entry) => {
    const expected = entry.hop === null ? null : V2[entry.hop];
    expect(nextState(entry.flags, V2[entry.current], V2[entry.target])).toBe(expected);
  });

  test.each([-1, 8, 9, 255, 2 ** 32, 1.5, Number.NaN])('knows no state %d', (state) => {
    expect(nextState(7, state, V2.STOP)).toBeNull();
    expect(nextState(7, V2.STOP, state)).toBeNull();
  });
});

describe('statePath', () => {
  test.each(entries)('follows the kernel hop by hop: flags $flags, $current to $target', (entry) => {
    const walk = (): number[] => statePath(entry.flags, V2[entry.current], V2[entry.target]);
    if (entry.hop === null) {
      expect(outcome(walk)).toBe('EINVAL');
      return;
    }
    const expected: V2StateName[] = [];
    for (let at = entry.current; at !== entry.target;) {
      const hop = answers[entry.flags]?.[at][entry.target];
      if (hop === null || hop === undefined) throw new Error(`the vectors have no hop from ${at}`);
      expected.push(hop);
      at = hop;
    }
    expect(walk()).toEqual(expected.map((name) => V2[name]));
  });
});
