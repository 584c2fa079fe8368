import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { migrateLive } from '../../src/vmm/migration.ts';
import { check } from '../guest/check.ts';
import { assertGoesOn, OLD, ROUND, startBoth, startDestination, type End } from '../guest/pair.ts';
import { askedOf, traced, type Asked } from '../guest/trace.ts';

/** What `run --record` shows that the driver is asked in a whole migration, and what the driver may be asked. */

const vector = (name: string): string => readFileSync(new URL(`../../test/vectors/${name}`, import.meta.url), 'utf8');
type NextState = Readonly<Record<string, Readonly<Record<string, string | null>>>>;
const { '7': nextState } = JSON.parse(vector('fsm-next-state.json')) as { readonly '7': NextState };

/** The data_fd that the probe recorded for each transition; a number stands for itself, FD for a descriptor. */
const recorded = new Map(
  [...vector('mtty-linux-6.12-probe.txt').matchAll(/^ {2}(\w+) +-> (\w+) +ret=0 data_fd=(\S+)/gm)].map(
    ([, from, to, fd]) => [`${from} ${to}`, fd === 'FD' ? 'data_fd' : Number(fd)],
  ),
);

/** What the probe recorded of an mtty of two ports: the header, which pre-copy has, and all of its data. */
const HEADER = 24;
const ALL = 96;

/** A stay of the driver in a state, and the bytes that were read or written in it. */
interface Stay {
  readonly state: string;
  moved: number;
}

/** The answer that the probe recorded to a request. It left RESUMING without data, which is refused, and with all of them. */
function recordedAnswer(stay: Stay, target: string): number | string | undefined {
  if (stay.state === 'RESUMING' && stay.moved === ALL) return -1;
  return recorded.get(`${stay.state} ${target}`);
}

/** What else may be asked in a state, and the bytes that it may answer. */
const questions: Readonly<Record<string, (stay: Stay) => readonly number[]>> = {
  'precopy info': ({ state, moved }) => (state === 'PRE_COPY' ? [HEADER - moved] : []),
  read: ({ state, moved }) => {
    if (state === 'PRE_COPY') return [HEADER - moved];
    return state === 'STOP_COPY' ? [0, ALL - HEADER, ALL] : [];
  },
  write: ({ state, moved }) =>
    state === 'RESUMING' ? [HEADER, ALL - HEADER, ALL].filter((n) => moved + n <= ALL) : [],
};

/** Goes through what a driver was asked; fails at anything that it may not be asked, or that it did not answer to the probe. */
function follow(asked: readonly Asked[]): Stay[] {
  // what was left behind is seen before it is reset
  let stay: Stay = { state: String(asked[0]?.answer), moved: 0 };
  const stays = [stay];
  const enter = (state: string): void => {
    if (state !== stay.state) stays.push((stay = { state, moved: 0 }));
  };
  for (const { driver, answer } of asked) {
    const where = `${driver} after ${JSON.stringify(stays)}: ${answer}`;
    const target = /^SET MIG_DEVICE_STATE (\w+)$/.exec(driver)?.[1];
    if (target !== undefined) {
      assert.equal(typeof nextState[stay.state]?.[target], 'string', where);
      assert.equal(answer, recordedAnswer(stay, target), where);
      enter(target);
    } else if (driver === 'VFIO_DEVICE_RESET') {
      assert.equal(answer, 0, where);
      enter('RUNNING');
    } else if (driver === 'GET MIG_DEVICE_STATE') assert.equal(answer, stay.state, where);
    else if (driver === 'GET MIG_DATA_SIZE') assert.equal(answer, ALL, where);
    else {
      assert.ok(questions[driver]?.(stay).includes(Number(answer)), where);
      if (driver !== 'precopy info') stay.moved += Number(answer);
    }
  }
  return stays;
}

const SAVED = ['RUNNING', 'PRE_COPY', 'STOP_COPY', 'STOP'];

/** A source's way ends so, and all of the data were read, by one or two reads. */
function assertSaved(stays: readonly Stay[]): void {
  const last = stays.slice(-SAVED.length);
  assert.deepEqual(
    last.map(({ state }) => state),
    SAVED,
  );
  const [preCopy = 0, stopCopy = 0] = last.slice(1).map(({ moved }) => moved);
  assert.equal(preCopy + stopCopy, ALL);
  assert.ok([0, HEADER].includes(preCopy));
}

/** A destination's way has one stay in RESUMING with all of the data, and then the VM's. */
function assertLoaded(stays: readonly Stay[]): void {
  const at = stays.findIndex(({ state }) => state === 'RESUMING');
  assert.equal(stays[at]?.moved, ALL);
  const then = stays.slice(at + 1).find(({ state }) => state !== 'STOP');
  assert.equal(then?.state, 'RUNNING');
}

const ends: readonly (readonly [title: string, end: End])[] = [
  ['7.2 under run', OLD],
  ['10.0 under run --round-trip', ROUND],
];

for (const [title, end] of ends) {
  await check(`${title}: there and back, the driver is asked nothing but what it may be`, async (bed) => {
    const both = await startBoth(bed, traced(bed, end, 'source'), traced(bed, end, 'destination'), 0x1f);
    await migrateLive(both.source.vm, both.destination.vm, bed.path('migration'), { returnPath: true });
    await assertGoesOn(both.destination, 0x1f);
    await both.source.vm.quit();
    const back = await startDestination(bed, traced(bed, end, 'back'), 'back', both.source.mttys);
    await migrateLive(both.destination.vm, back.vm, bed.path('back.migration'), { returnPath: true });
    await assertGoesOn(back, 0x1f);

    const stays = ['source', 'destination', 'back'].map((name) => follow(askedOf(bed, name)));
    const [there = [], between = [], home = []] = stays;
    assertSaved(there);
    assertLoaded(between);
    assertSaved(between);
    assertLoaded(home);
    // the first VM left its device stopped
    const states = home.slice(0, 2).map(({ state }) => state);
    assert.deepEqual(states, ['STOP', 'RUNNING']);
  });
}
