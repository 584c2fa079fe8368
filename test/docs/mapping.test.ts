import { describe, expect, test } from 'vitest';
import { requestedAs, shownAs, writesFor, type V1Goal, type V1Place } from '../../src/bridge/state-map.ts';
import { outcome } from '../support/errno.ts';
import { V1, type V1State } from '../../src/v1/states.ts';
import { parseV2State } from '../../src/v2/states.ts';
import { QEMU_WROTE } from '../support/qemu-writes.ts';
import type { Draft, DraftDevice } from '../../src/v1/drafts/device.ts';
import { DraftAccess } from '../../src/v1/drafts/registers.ts';
import { is2018Transition, type State2018 } from '../../src/v1/drafts/states.ts';
import { presentDraft } from '../support/drafts.ts';
import { v1Sim } from '../support/sims.ts';
import { SpyV1 } from '../support/spy-v1.ts';
import { documents } from './documents.ts';

/** The rows of the table in docs/mapping.md whose heading begins so, the heading first. */
function tableOf(heading: string): string[][] {
  const lines = (documents.find(({ path }) => path === 'docs/mapping.md')?.text ?? '').split('\n');
  const begin = lines.findIndex((line) => {
    const cells = line.startsWith('|') ? line.slice(1).split('|') : [];
    return cells
      .map((cell) => cell.trim())
      .join(' | ')
      .startsWith(heading);
  });
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

describe('docs/mapping.md, on drafts', () => {
  const spied = (): SpyV1 => new SpyV1(v1Sim('vendor-v1').device);
  const write = (draft: DraftDevice, value: number): string =>
    outcome(() => new DraftAccess<Draft>(draft, draft.draft).write('device_state', value));

  /** How a v1 device gets to where a column or a row has it. */
  const ways2019: Readonly<Record<string, readonly number[]>> = { '0': [2, 0], '1': [], '2': [2], '3': [3], '4': [0] };

  test('has what presentDraft2019 writes', () => {
    const [heading = [], ...rows] = tableOf('written | v1 0');
    const columns = heading.slice(1).map((name) => name.replace('v1 ', ''));
    expect([columns, rows.map(([value]) => value)]).toEqual([Object.keys(ways2019), ['0', '1', '2', '3']]);
    for (const [value = '', ...cells] of rows) {
      const found = columns.map((column) => {
        const spy = spied();
        const draft = presentDraft('draft-2019', spy);
        for (const step of ways2019[column] ?? []) write(draft, step);
        spy.changes.length = 0;
        // a device without a state refuses to run: what was written counts
        const answer = write(draft, Number(value));
        if (answer !== 'OK' && spy.changes.length === 0) return 'no way';
        return spy.changes.length === 0 ? '-' : spy.changes.map((change) => change.slice(2)).join(', ');
      });
      expect([value, ...cells]).toEqual([value, ...found]);
    }
  });

  const ways2018: Readonly<Record<string, readonly number[]>> = {
    '0': [2, 4, 5, 0],
    '1': [],
    '2': [2],
    '3': [3],
    '4': [4],
    '5': [4, 5],
    '6': [6],
    '7': [6, 7],
    '8': [2, 8],
    '9': [2, 9],
  };

  test('has what presentDraft2018 writes, and from where', () => {
    const rows = tableOf('written | from').slice(1);
    const told = new Set<string>();
    for (const [values = '', from = '', asked = ''] of rows) {
      const places = from === 'any' ? Object.keys(ways2018) : from.split(', ');
      for (const place of places) {
        for (const value of values.split(', ')) {
          const spy = spied();
          const draft = presentDraft('draft-2018', spy);
          for (const step of ways2018[place] ?? []) write(draft, step);
          spy.changes.length = 0;
          const answer = write(draft, Number(value));
          told.add(`${place}>${value}`);
          const written = spy.changes.map((change) => change.slice(2)).join(', ');
          const isThere = from === 'any' && ['1', '2', '8', '9'].includes(place); // the device runs already
          const isReset = asked === 'a reset'; // which is acknowledged
          const expected = asked.startsWith('nothing') || isThere ? '' : isReset ? '1' : asked;
          expect([place, value, written]).toEqual([place, value, expected]);
          const isEmpty = value === '1' && ['6', '7'].includes(place); // it has got no state, and refuses
          expect([place, value, answer]).toEqual([place, value, isEmpty ? 'EINVAL' : 'OK']);
        }
      }
    }
    for (const place of Object.keys(ways2018)) {
      for (let value = 0; value <= 10; value += 1) {
        const isTold = told.has(`${place}>${value}`) || String(value) === place;
        expect([place, value, is2018Transition(Number(place) as State2018, value)]).toEqual([place, value, isTold]);
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
