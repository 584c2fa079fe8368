import { readdirSync } from 'node:fs';
import { describe, expect, test, vi } from 'vitest';
import { RecordingRing } from '../../../src/interpose/memory/recording-ring.ts';
import { Rehearsal } from '../../../src/interpose/rehearsal/rehearsal.ts';
import { RehearsalTarget } from '../../../src/interpose/rehearsal/rehearsal-target.ts';
import { duplicateFd } from '../../../src/sys/pidfd.ts';
import type { Plan } from '../../../src/interpose/run/plan.ts';
import type { RecordingHeader } from '../../../src/recording/format.ts';
import { DRIVERS } from '../../../src/sim/drivers.ts';
import { smallSpec } from '../../../src/sim/spec.ts';
import { V1Save } from '../../../src/v1/save.ts';
import { V2Save } from '../../../src/v2/save.ts';
import { V2 } from '../../../src/v2/states.ts';
import { inShort } from '../../support/runs.ts';

function plan(options: Partial<Plan> = {}): Plan {
  return {
    devices: [],
    dataSection: 8192,
    present: 'auto',
    roundTrip: false,
    segmentation: 'raw',
    offerP2P: false,
    countStopCopy: false,
    holdPrecopy: 0,
    dataFds: { first: 200, last: 215 },
    dirtyPages: false,
    p2p: false,
    onError: 'reset',
    v1: { stopBySaving: false, stopAfterLoad: false },
    log: undefined,
    recording: undefined,
    status: undefined,
    fds: {
      target: -1,
      report: undefined,
      log: undefined,
      record: undefined,
      recordData: undefined,
      trace: undefined,
      status: undefined,
      wake: undefined,
      lastWords: undefined,
    },
    stderr: { dev: 0, ino: 0 },
    verbose: false,
    sysfs: undefined,
    ...options,
  };
}

const descriptors = (): string[] => readdirSync('/proc/self/fd');
duplicateFd(process.pid, 0)?.close(); // one pidfd is kept, of whoever called last

function runToEnd(rehearsal: Rehearsal): number {
  let steps = 1;
  while (rehearsal.step()) steps += 1;
  return steps;
}

describe('a rehearsal', () => {
  const presented = ['auto', 'draft-2018', 'draft-2019'] as const;
  const all = DRIVERS.flatMap((driver) =>
    presented.flatMap((present) => [false, true].map((roundTrip) => ({ driver, present, roundTrip }))),
  );
  test.each(inShort(all, (_, n) => n % 5 === 0))(
    'of $driver as $present, round trip $roundTrip, goes on in small steps and leaves no descriptor',
    ({ driver, present, roundTrip }) => {
      const before = descriptors();
      let time = 0; // a machine that is busy may take all of the time for one step
      const rehearsal = new Rehearsal(plan({ present, roundTrip }), [driver], () => (time += 0.1));
      expect(runToEnd(rehearsal)).toBeGreaterThan(1);
      expect(descriptors()).toEqual(before);
    },
  );

  test.each(inShort(DRIVERS, (driver) => driver === 'qat' || driver === 'vendor-v1'))(
    'of %s records what it does, if the run is recorded, and has room for each line',
    (driver) => {
      const committed = vi.spyOn(RecordingRing.prototype, 'commit');
      let time = 0;
      const recording = { header: {} as RecordingHeader, limit: 0, isJudged: false };
      runToEnd(new Rehearsal(plan({ recording }), [driver], () => (time += 0.1)));
      expect(committed.mock.results.length).toBeGreaterThan(1000);
      expect(committed.mock.results.filter(({ value }) => value !== true)).toEqual([]);
      committed.mockRestore();
    },
  );

  test('that is cut short in a migration leaves no descriptor either', () => {
    const before = descriptors();
    const stage = new RehearsalTarget(plan(), 'qat');
    expect(stage.v2?.setState(V2.PRE_COPY)).toBeDefined();
    stage[Symbol.dispose]();
    expect(descriptors()).toEqual(before);
  });

  test('of nothing is over at once', () => {
    expect(new Rehearsal(plan(), []).step()).toBe(false);
  });

  test('that finds no descriptor to be had says so, and leaves none either', () => {
    const before = descriptors();
    const rehearsal = new Rehearsal(plan({ dataFds: { first: 2 ** 30, last: 2 ** 30 } }), ['vendor-v1']);
    expect(() => runToEnd(rehearsal)).toThrow('VFIO_DEVICE_FEATURE: EMFILE');
    expect(descriptors()).toEqual(before);
  });
});

describe('what is rehearsed', () => {
  test.each([
    ['v1', true, false],
    ['v2', false, true],
    ['auto', true, true],
  ] as const)('is what a run with --present %s shows', (present, v1, v2) => {
    using stage = new RehearsalTarget(plan({ present }), 'qat');
    expect([stage.v1 !== undefined, stage.v2 !== undefined]).toEqual([v1, v2]);
  });

  test.each(inShort(DRIVERS, (_, n) => n % 2 === 0))('moves the whole state of %s through trapped calls', (driver) => {
    using stage = new RehearsalTarget(plan(), driver);
    const expected = smallSpec(driver).size;
    const { v1, v2 } = stage;
    if (v1 === undefined || v2 === undefined) throw new Error('nothing is shown');
    let bytes = 0;
    const count = (piece: Uint8Array): void => void (bytes += piece.length);
    const old = new V1Save(v1, count);
    old.setup();
    old.complete();
    old.cancel();
    expect(bytes).toBeGreaterThanOrEqual(expected);
    bytes = 0;
    v1.reset();
    const young = new V2Save(v2, count);
    young.setup();
    young.complete();
    expect(bytes).toBeGreaterThanOrEqual(expected);
  });
});
