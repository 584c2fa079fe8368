import { describe, expect, test } from 'vitest';
import { requestedAs, shownAs, writesFor, type V1Goal, type V1Place } from '../../src/bridge/state-map.ts';
import { outcome } from '../support/errno.ts';
import { V1, type V1State } from '../../src/v1/states.ts';
import { parseV2State } from '../../src/v2/states.ts';
import { QEMU_WROTE } from '../support/qemu-writes.ts';
import { documents } from './documents.ts';

/** The rows of the table in docs/mapping.md whose heading begins so, the heading first. */
function tableOf(heading: string): string[][] {
  const lines = (documents.find(({ path }) => path === 'docs/mapping.md')?.text ?? '').split('\n');
  const begin = lines.findIndex((line) => line.startsWith('|') && line.slice(1).trim().startsWith(heading));
  expect(begin).toBeGreaterThan(0);
  const rows: string[][] = [];
  for (let at = begin; lines[at]?.startsWith('|') === true; at += 1) {
    const cells = (lines[at] ?? '').split('|').slice(1, -1);
    if (!/^[ -]+$/.test(cells[0] ?? '')) rows.push(cells.map((cell) => cell.trim()));
  }
  return rows;
}

const places: Readonly<Record<string, V1Place>> = {
  '0': 'STOP',
  '1': 'RUNNING',
  '3': 'PRE_COPY',
  '2, saving': 'STOP_COPY',
  '4, resuming': 'RESUMING',
  '2, shown as STOP': 'UNREAD',
  '4, shown as STOP': 'LOADED',
};
const numberOf: Readonly<Record<V1Place, V1State>> = {
  STOP: 0,
  RUNNING: 1,
  PRE_COPY: 3,
  STOP_COPY: 2,
  RESUMING: 4,
  UNREAD: 2,
  LOADED: 4,
};
const runs = (state: V1State): boolean => state === V1.RUNNING || state === V1.PRE_COPY;
const goals = ['STOP', 'RUNNING', 'STOP_COPY', 'PRE_COPY', 'RESUMING'] as const satisfies readonly V1Goal[];

/** What a cell says: writes, or that there is no way. */
function asCell(place: V1Place, goal: V1Goal, stopBySaving: boolean, stopAfterLoad = false): string {
  let cell = '';
  const answer = outcome(() => {
    const writes = writesFor(place, goal, { stopBySaving, stopAfterLoad });
    cell = writes.length === 0 ? '-' : writes.join(', ');
  });
  return answer === 'OK' ? cell : 'no way';
}

describe('docs/mapping.md', () => {
  test('shows each v2 state as presentV1 does', () => {
    const rows = tableOf('the v2 device is in').slice(1);
    const told = rows.flatMap(([states = '', shown = '']) =>
      states.split(', ').map((name) => [parseV2State(name), Number.parseInt(shown, 10)] as const),
    );
    expect(Object.fromEntries(told)).toEqual(shownAs);
  });

  test('has what presentV1 asks of the device for each write', () => {
    const rows = tableOf('written to device_state').slice(1);
    const told = rows.flatMap(([written = '', asked = '']) => {
      const state = /^([0-4]), from/.exec(written)?.[1];
      return state === undefined ? [] : [[Number(state), parseV2State(/^\w+/.exec(asked)?.[0] ?? '')] as const];
    });
    expect(Object.fromEntries(told)).toEqual(requestedAs);
  });

  test('has every way of presentV2 to a v1 driver', () => {
    const [heading = [], ...rows] = tableOf('the driver is in');
    expect(heading.slice(1)).toEqual(goals);
    expect(rows.map(([place = '']) => place)).toEqual(Object.keys(places));
    for (const [name = '', ...cells] of rows) {
      const place = places[name] as V1Place;
      expect([name, ...cells]).toEqual([name, ...goals.map((goal) => asCell(place, goal, false))]);
    }
  });

  test('has the ways that differ where a stop is written as 2', () => {
    const [heading = [], ...rows] = tableOf('`stopBySaving`');
    const columns = heading.slice(1) as V1Goal[];
    for (const [name = '', ...cells] of rows) {
      const place = places[name] as V1Place;
      expect([name, ...cells]).toEqual([name, ...columns.map((goal) => asCell(place, goal, true))]);
    }
    for (const [name, place] of Object.entries(places)) {
      for (const goal of goals) {
        const told = columns.includes(goal) && rows.some(([row]) => row === name);
        if (!told) expect([name, goal, asCell(place, goal, true)]).toEqual([name, goal, asCell(place, goal, false)]);
      }
    }
  });
});

describe('writesFor', () => {
  const habits = [false, true].flatMap((stopBySaving) =>
    [false, true].map((stopAfterLoad) => ({ stopBySaving, stopAfterLoad })),
  );
  const ways = habits.flatMap((habit) =>
    (Object.keys(numberOf) as V1Place[]).flatMap((place) => goals.map((goal) => ({ habit, place, goal }))),
  );

  test.each(ways)('$place to $goal, $habit: as QEMU wrote, and no stopped device runs', ({ habit, place, goal }) => {
    let writes: readonly V1State[] = [];
    if (outcome(() => (writes = writesFor(place, goal, habit))) !== 'OK') return;
    let at = numberOf[place];
    for (const write of writes) {
      const change = `${at}>${write}`;
      // 4>0 is what stopAfterLoad says; 0>2 is what stopBySaving rules out
      const isAllowed = QEMU_WROTE.has(change) || (habit.stopAfterLoad && change === '4>0');
      expect([change, isAllowed && !(habit.stopBySaving && change === '0>2')]).toEqual([change, true]);
      if (!runs(numberOf[place]) && goal !== 'RUNNING' && goal !== 'PRE_COPY') expect(runs(write)).toBe(false);
      at = write;
    }
    const stands: Readonly<Record<V1Goal, readonly V1State[]>> = {
      STOP: [0, 2, 4],
      RUNNING: [1],
      STOP_COPY: [2],
      PRE_COPY: [3],
      RESUMING: [4],
    };
    expect(stands[goal]).toContain(at);
  });
});
