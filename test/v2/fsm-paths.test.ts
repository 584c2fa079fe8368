import { describe, expect, test } from 'vitest';
import { hasState, nextState, statePath } from '../../src/v2/fsm.ts';
import { V2, type V2StateName } from '../../src/v2/states.ts';
import { thrownBy } from '../support/errno.ts';

/*
 * The machine once more, from what the header says about it (linux/vfio.h, 6.2: "vfio_device_mig_state"): the arcs that
 * a driver implements, and how a combination transition chooses among them. Nothing here is shared with the source.
 */

type Arc = readonly [V2StateName, V2StateName];
const always: readonly Arc[] = [
  ['RESUMING', 'STOP'],
  ['STOP', 'RESUMING'],
  ['STOP', 'STOP_COPY'],
  ['STOP_COPY', 'STOP'],
];
const withoutP2P: readonly Arc[] = [
  ['RUNNING', 'STOP'],
  ['STOP', 'RUNNING'],
];
const withP2P: readonly Arc[] = [
  ['RUNNING', 'RUNNING_P2P'],
  ['RUNNING_P2P', 'RUNNING'],
  ['RUNNING_P2P', 'STOP'],
  ['STOP', 'RUNNING_P2P'],
];
const withPreCopy: readonly Arc[] = [
  ['RUNNING', 'PRE_COPY'],
  ['PRE_COPY', 'RUNNING'],
];
const withPreCopyOnly: readonly Arc[] = [['PRE_COPY', 'STOP_COPY']];
const withBoth: readonly Arc[] = [
  ['PRE_COPY', 'PRE_COPY_P2P'],
  ['PRE_COPY_P2P', 'PRE_COPY'],
  ['PRE_COPY_P2P', 'RUNNING_P2P'],
  ['PRE_COPY_P2P', 'STOP_COPY'],
  ['RUNNING_P2P', 'PRE_COPY_P2P'],
];

const STOP_COPY_FLAG = 1;
const P2P_FLAG = 2;
const PRE_COPY_FLAG = 4;
const allFlags = [STOP_COPY_FLAG, STOP_COPY_FLAG | P2P_FLAG, STOP_COPY_FLAG | PRE_COPY_FLAG, 7];

function arcsOf(flags: number): readonly Arc[] {
  const p2p = (flags & P2P_FLAG) !== 0;
  const preCopy = (flags & PRE_COPY_FLAG) !== 0;
  return [
    ...always,
    ...(p2p ? withP2P : withoutP2P),
    ...(preCopy ? withPreCopy : []),
    ...(preCopy && !p2p ? withPreCopyOnly : []),
    ...(preCopy && p2p ? withBoth : []),
  ];
}

const saving: ReadonlySet<V2StateName> = new Set(['PRE_COPY', 'PRE_COPY_P2P', 'STOP_COPY']);

/**
 * All shortest paths by the header's rule that a path has no saving-group states in its interior; but between two states
 * of the group the session goes on, so that the path must not leave it.
 */
function shortestPaths(flags: number, from: V2StateName, to: V2StateName): V2StateName[][] {
  const withinGroup = saving.has(from) && saving.has(to);
  const arcs = arcsOf(flags).filter(([, hop]) => hop === to || saving.has(hop) === withinGroup);
  const seen = new Set<V2StateName>([from]);
  for (let level: V2StateName[][] = [[]]; level.length > 0;) {
    const found = level.filter((path) => (path.at(-1) ?? from) === to);
    if (found.length > 0) return found;
    level = level.flatMap((path) =>
      arcs.filter(([at, hop]) => at === (path.at(-1) ?? from) && !seen.has(hop)).map(([, hop]) => [...path, hop]),
    );
    for (const path of level) for (const hop of path) seen.add(hop);
  }
  return [];
}

function statesOf(flags: number): Set<V2StateName> {
  return new Set(arcsOf(flags).flat());
}

const names = Object.keys(V2) as V2StateName[];
const cases = allFlags.flatMap((flags) => names.flatMap((from) => names.map((to) => ({ flags, from, to }))));

describe('statePath', () => {
  test.each(cases)('is the shortest path of the documented arcs: flags $flags, $from to $to', ({ flags, from, to }) => {
    const states = statesOf(flags);
    const paths = states.has(from) && states.has(to) ? shortestPaths(flags, from, to) : [];
    if (paths.length === 0) {
      expect(nextState(flags, V2[from], V2[to])).toBeNull();
      expect(thrownBy(() => statePath(flags, V2[from], V2[to]))).toMatchObject({
        code: 'ERR_TRANSITION',
        errno: 'EINVAL',
      });
      return;
    }
    expect(paths).toHaveLength(1);
    expect(statePath(flags, V2[from], V2[to])).toEqual(paths[0]?.map((name) => V2[name]));
  });

  test('is empty where the state is the one asked for', () => {
    for (const flags of allFlags) {
      for (const name of statesOf(flags)) expect(statePath(flags, V2[name], V2[name])).toEqual([]);
    }
  });

  test('says which state is missing, or that pre-copy is not re-entered', () => {
    expect(thrownBy(() => statePath(1, V2.RUNNING, V2.PRE_COPY)).message).toBe(
      'transition RUNNING to PRE_COPY: a device with migration flags 1 has no state PRE_COPY to go through',
    );
    expect(thrownBy(() => statePath(7, V2.ERROR, V2.STOP)).message).toContain('no state ERROR');
    expect(thrownBy(() => statePath(7, V2.STOP_COPY, V2.PRE_COPY)).message).toBe(
      'transition STOP_COPY to PRE_COPY: pre-copy cannot be re-entered from STOP_COPY',
    );
    expect(thrownBy(() => statePath(7, V2.STOP, 8)).message).toContain('(8)');
  });
});

describe('hasState', () => {
  test.each(allFlags)('is true for the states that flags %d stand for', (flags) => {
    const states = statesOf(flags);
    for (const name of names) expect([name, hasState(flags, V2[name])]).toEqual([name, states.has(name)]);
  });
});
