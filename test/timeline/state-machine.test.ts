import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { dotOf, machineV1, machineV2, mermaidOf } from '../../src/timeline/state-machine.ts';
import { PHASES } from '../../src/timeline/phases.ts';
import { ci } from '../../tools/vmm/binaries.ts';
import { because } from '../support/host.ts';
import { vector } from '../support/vectors.ts';

/** What Linux 6.12's vfio_mig_get_next_state() has answered: next hop by migration flags, current and requested state. */
const kernel = JSON.parse(vector('fsm-next-state.json')) as Record<
  string,
  Record<string, Record<string, string | null>>
>;

/** The hops of a device with these flags, as the kernel has them: a state that is reached at once. */
function hopsOf(flags: string): string[] {
  return Object.entries(kernel[flags] ?? {}).flatMap(([from, row]) =>
    Object.entries(row).flatMap(([to, next]) => (from !== to && next === to ? [`${from} ${to}`] : [])),
  );
}

const withoutReset = (arcs: ReturnType<typeof machineV2>['arcs']): typeof arcs =>
  arcs.filter(({ label }) => label !== 'reset');

describe('the picture of v2', () => {
  it.each(['1', '3', '5', '7'])('has the hops of the kernel, for migration flags %s', (flags) => {
    const arcs = withoutReset(machineV2(Number(flags)).arcs).map(({ from, to }) => `${from} ${to}`);
    expect(hopsOf(flags).length).toBeGreaterThan(5);
    expect(arcs.toSorted()).toEqual(hopsOf(flags).toSorted());
  });

  it('has all of them, each with what a device must have or lack for it', () => {
    const holds = (label: string, flags: number): boolean =>
      label
        .split(', ')
        .filter((condition) => condition !== '')
        .every((condition) => {
          const flag = condition.endsWith('P2P') ? 2 : 4;
          return condition.startsWith('without ') ? (flags & flag) === 0 : (flags & flag) !== 0;
        });
    const { arcs } = machineV2();
    for (const flags of ['1', '3', '5', '7']) {
      const having = withoutReset(arcs).filter(({ label }) => holds(label, Number(flags)));
      expect(having.map(({ from, to }) => `${from} ${to}`).toSorted()).toEqual(hopsOf(flags).toSorted());
    }
    expect(arcs.filter(({ optional }) => !optional).map(({ from, to }) => `${from} ${to}`)).toEqual([
      'STOP STOP_COPY',
      'STOP RESUMING',
      'STOP_COPY STOP',
      'RESUMING STOP',
    ]);
  });
});

describe('the picture of v1', () => {
  it('has a value for each write that a driver takes', () => {
    const arcs = withoutReset(machineV1().arcs).map(({ from, to, label }) => `${from} ${label} ${to}`);
    expect(arcs).toContain('RUNNING 3 PRE_COPY');
    expect(arcs).toContain('PRE_COPY 2 STOP_COPY');
    expect(arcs).not.toContain('STOP_COPY 3 PRE_COPY');
    expect(arcs).toHaveLength(15);
  });
});

describe('both pictures', () => {
  it('give equal states equal colours', () => {
    const colours = (text: string): Map<string, string> =>
      new Map(
        Array.from(text.matchAll(/^ {2}(\w+) \[fillcolor="(#\w+)"\]/gm), ([, state = '', colour = '']) => [
          state,
          colour,
        ]),
      );
    const v1 = colours(dotOf(machineV1()));
    const v2 = colours(dotOf(machineV2()));
    expect(v1.size).toBe(6);
    for (const [state, colour] of v1) expect(v2.get(state)).toBe(colour);
    expect(v2.get('PRE_COPY')).toBe(PHASES['pre-copy'].colour);
    expect(new Set(v2.values()).size).toBe(8);
  });

  it('are lines that mermaid knows', () => {
    const known =
      /^(stateDiagram-v2| {2}classDef [a-z]\w* fill:#[\da-f]{6},color:#000| {2}class [A-Z]\w* [a-z]\w*| {2}[A-Z]\w* --> [A-Z]\w*(: [\w, ]+)?)$/;
    for (const machine of [machineV1(), machineV2(), machineV2(3)]) {
      expect(
        mermaidOf(machine)
          .trimEnd()
          .split('\n')
          .filter((line) => !known.test(line)),
      ).toEqual([]);
    }
  });
});

const dot = spawnSync('dot', ['-V'], { encoding: 'utf8' });
const noDot = dot.error === undefined ? undefined : `dot: ${dot.error.message}`;

it.skipIf(noDot !== undefined && !ci).each([machineV1(), machineV2(), machineV2(3)])(
  `Graphviz draws it${because(noDot)}`,
  (machine) => {
    const { status, stdout, stderr } = spawnSync('dot', ['-Tsvg'], { input: dotOf(machine), encoding: 'utf8' });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout.match(/class="node"/g)).toHaveLength(machine.states.length);
    expect(stdout.match(/class="edge"/g)).toHaveLength(machine.arcs.length);
  },
);
