import { describe, expect, it } from 'vitest';
import type { ErrnoName } from '../../src/abi/errno.ts';
import type { Lane } from '../../src/timeline/survey.ts';
import { readTimeline, type Timeline } from '../../src/timeline/timeline.ts';
import { recordingHeader } from '../support/recording-header.ts';
import { inShort } from '../support/runs.ts';
import { DEVICE, destination, source, Tape } from './tape.ts';
import { patient } from '../support/patience.ts';

const timelineOf = (...tapes: readonly Tape[]): Timeline => readTimeline(tapes.map(({ entries }) => entries));

function lanesOf({ recordings }: Timeline): readonly Lane[] {
  return recordings.flatMap(({ lanes }) => lanes);
}

/** The states of a side, with when each begins. */
function statesOf(timeline: Timeline, side: 'vmm' | 'driver'): unknown[] {
  return lanesOf(timeline).map(({ rows }) =>
    rows.filter((row) => row.side === side).flatMap(({ spans }) => spans.map(({ state, begin }) => [state, begin])),
  );
}

describe('a timeline', () => {
  it('has the states of both ends on one axis, from the answer to what brought them about', () => {
    const timeline = timelineOf(source(), destination());
    expect(statesOf(timeline, 'vmm')).toEqual([
      [
        ['RUNNING', 0],
        ['PRE_COPY', 1010],
        ['STOP_COPY', 2010],
        ['STOP', 2710],
      ],
      [
        ['RUNNING', 0],
        ['RESUMING', 910],
        ['RUNNING', 3000],
      ],
    ]);
    expect(timeline.recordings.map(({ role }) => role)).toEqual(['source', 'destination']);
    expect(timeline.whole).toEqual({ begin: 0, end: 6000 });
    expect(timeline.realtime).toBe(recordingHeader().realtime);
  });

  it('ends a state where the next one begins, and the last one where the recording ends', () => {
    const [row] = lanesOf(timelineOf(source()))[0]?.rows ?? [];
    expect(row?.spans.map(({ end }) => end)).toEqual([1010, 2010, 2710, 5000]);
  });

  it('has states of the driver at the time of its calls, and of other drivers that the access asked', () => {
    const tape = new Tape()
      .opened(0)
      .opened(0, 'other')
      .state(1000, 'STOP_COPY', DEVICE, [
        { time: new Tape().at(1002), protocol: 'v2', call: 'set-state', state: 'RUNNING_P2P', session: false },
        {
          time: new Tape().at(1004),
          protocol: 'v2',
          call: 'set-state',
          state: 'PRE_COPY',
          session: true,
          device: 'other',
        },
        { time: new Tape().at(1006), protocol: 'v2', call: 'set-state', state: 'STOP_COPY', errno: 'EIO' },
        { time: new Tape().at(1008), protocol: 'v2', call: 'reset' },
      ]);
    expect(statesOf(timelineOf(tape), 'driver')).toEqual([
      [
        ['RUNNING_P2P', 1002],
        ['RUNNING', 1008],
      ],
      [['PRE_COPY', 1004]],
    ]);
  });

  it('has no state of an access that failed', () => {
    const tape = source().access({
      begin: source().at(2800),
      device: DEVICE,
      errno: 'EIO',
      call: { protocol: 'v1', call: 'register', access: 'write', register: 'device_state', value: 1, state: 'RUNNING' },
    });
    expect(JSON.stringify(statesOf(timelineOf(tape), 'vmm'))).not.toContain('2800');
    expect(lanesOf(timelineOf(tape))[0]?.rows[0]?.spans.at(-1)?.state).toBe('STOP');
  });

  it('counts the bytes of save and restore, which no VMM has asked for', () => {
    const lines = (command: 'save' | 'restore', direction: 'out' | 'in'): Tape =>
      new Tape({ command, devices: [{ name: 'sim:qat', device: 'sim:qat', protocol: 'v2' }] }).add({
        kind: 'driver',
        time: new Tape().at(10),
        device: 'sim:qat',
        call: { protocol: 'v2', call: 'data', direction, bytes: 77 },
        data: { bytes: 77, sha256: '0'.repeat(64) },
      });
    expect(lanesOf(timelineOf(lines('save', 'out')))).toMatchObject([{ out: 77, in: 0, what: '' }]);
    expect(lanesOf(timelineOf(lines('restore', 'in')))).toMatchObject([{ out: 0, in: 77 }]);
  });

  it('is bounded, whatever a recording has', () => {
    const tape = new Tape();
    for (let n = 0; n < 100; n += 1) tape.opened(n, `device ${n}`);
    for (let n = 0; n < 5000; n += 1) tape.state(200 + 20 * n, n % 2 === 0 ? 'PRE_COPY' : 'RUNNING', 'device 0');
    for (let n = 0; n < 300; n += 1) tape.add({ kind: 'takeover', time: tape.at(n), why: 'SIGKILL' });
    const timeline = timelineOf(tape);
    expect(lanesOf(timeline)).toHaveLength(64);
    expect(lanesOf(timeline)[0]?.rows[0]?.spans).toHaveLength(2048);
    expect(timeline.recordings[0]?.flags).toHaveLength(256);
    expect(timeline.notes).toEqual([
      'old: only the first 64 devices are shown.',
      'old: 2953 changes of state are not shown.',
      'old: 44 errors and takeovers are not shown.',
    ]);
  });

  it('takes a long recording, of which it counts every access', { timeout: patient(120_000) }, () => {
    const [length = 0] = inShort([1_000_000, 200_000], (_, n) => n === 1);
    const tape = new Tape();
    const [head] = tape.entries;
    function* lines(): Generator<(typeof tape.entries)[number]> {
      if (head !== undefined) yield head;
      for (let n = 0; n < length; n += 1) {
        const call = { protocol: 'v1', call: 'register', access: 'read', register: 'data_size', value: 1 } as const;
        const moved = { direction: 'out', bytes: 1 } as const;
        yield { kind: 'access', begin: tape.at(n * 7), us: 2, pid: 1, tid: 1, device: DEVICE, call, result: 8, moved };
      }
    }
    const [lane] = lanesOf(readTimeline([lines()]));
    expect(lane?.marks.length).toBeLessThanOrEqual(4096);
    expect(lane?.marks.length).toBeGreaterThan(1000);
    expect(lane?.marks.reduce((sum, { calls }) => sum + calls, 0)).toBe(length);
    expect(lane?.out).toBe(length);
  });
});

describe('the downtime', () => {
  it('is from when the source was asked to leave RUNNING until the destination runs', () => {
    expect(timelineOf(source(), destination()).downtimes).toEqual([
      { begin: 2000, end: 3000, source: 0, destination: 1 },
    ]);
    expect(timelineOf(destination(), source()).downtimes).toEqual([
      { begin: 2000, end: 3000, source: 1, destination: 0 },
    ]);
  });

  it('is there if both ends are', () => {
    expect(timelineOf(source()).downtimes).toEqual([]);
    expect(timelineOf(destination()).downtimes).toEqual([]);
    expect(timelineOf(source(), source()).downtimes).toEqual([]);
  });

  it('is of all devices: from the first that stops to the last that runs', () => {
    const from = source().state(1900, 'STOP_COPY', 'other').bytes(1950, 'out', 1, 'other');
    const to = destination()
      .state(950, 'RESUMING', 'other')
      .bytes(2000, 'in', 1, 'other')
      .state(3200, 'RUNNING', 'other');
    const [running] = [new Tape({ host: 'one' }).opened(0, 'other').entries[1]];
    expect(running).toBeDefined();
    const entries = from.entries.toSpliced(1, 0, ...(running === undefined ? [] : [running]));
    expect(readTimeline([entries, to.entries]).downtimes).toMatchObject([{ begin: 1900, end: 3210 }]);
  });

  it('is that of the migration that came through, if one before was given up', () => {
    const from = new Tape({ host: 'one' })
      .opened(0)
      .state(100, 'PRE_COPY')
      .state(200, 'STOP_COPY')
      .state(300, 'RUNNING');
    for (const entry of source().entries.slice(2)) from.add(entry);
    expect(timelineOf(from, destination()).downtimes).toMatchObject([{ begin: 2000, end: 3000 }]);
  });

  it('is not there while a device has not come to run', () => {
    const to = destination().state(950, 'RESUMING', 'other').bytes(2000, 'in', 1, 'other');
    expect(timelineOf(source(), to).downtimes).toEqual([]);
  });
});

describe('what is drawn', () => {
  it('is the migration, from the first state that is not RUNNING, with a margin', () => {
    const { migration } = timelineOf(source(), destination());
    expect(migration).toEqual({ begin: 900 - 84, end: 3000 + 84 });
  });

  it('is everything if nothing migrates', () => {
    const { migration, whole } = timelineOf(new Tape().opened(0).ended(100));
    expect(migration).toEqual(whole);
    expect(whole).toEqual({ begin: 0, end: 100 });
  });
});

describe('the clocks of two recordings', () => {
  const { realtime, monotonic } = recordingHeader();

  it('are one if they are of one host, whatever its time of day was set to meanwhile', () => {
    const timeline = timelineOf(source(), destination({ host: 'one', realtime: realtime + 500_000 }));
    expect(timeline.downtimes).toMatchObject([{ begin: 2000, end: 3000 }]);
    expect(timeline.notes).toEqual(['The recordings are of one host, and share its clock.']);
  });

  it('are two if the host was started anew', () => {
    const timeline = timelineOf(source(), destination({ host: 'one', realtime: realtime + 2_000_000 }));
    expect(timeline.downtimes).toMatchObject([{ begin: 2000, end: 2_003_000 }]);
  });

  it('are put together by the time of day if they are of two hosts', () => {
    const timeline = timelineOf(source(), destination({ realtime: realtime + 400, monotonic: monotonic + 5 }));
    expect(timeline.downtimes).toMatchObject([{ begin: 2000, end: 3400 }]);
    expect(timeline.recordings.map(({ clock }) => clock.moved)).toEqual([0, 0]);
    expect(timeline.notes).toEqual([
      "The recordings are put side by side by their hosts' time of day; by that, no byte came in before it went out.",
    ]);
  });

  it.each([0, 1])('are corrected if bytes would come in before they went out; the source is recording %i', (first) => {
    const tapes = [source(), destination({ realtime: realtime - 10_000 })];
    const timeline = timelineOf(...(first === 0 ? tapes : tapes.toReversed()));
    // the 24 bytes came in 50 us behind 2600: by that the clock is 10 ms - 50 us behind, at least
    expect(timeline.recordings.map(({ clock }) => clock.moved)).toEqual(first === 0 ? [0, 9950] : [9950, 0]);
    expect(timeline.downtimes.map(({ begin, end }) => end - begin)).toEqual([950]);
    expect(timeline.notes).toEqual([
      "By the hosts' time of day, bytes came in at two before they went out: its clock is behind by at least 10 ms, by which its recording is moved.",
    ]);
  });

  it('are corrected along a chain', () => {
    const middle = destination({ host: 'two', realtime: realtime - 10_000 })
      .state(10_000, 'STOP_COPY')
      .bytes(10_500, 'out', 1024);
    const last = new Tape({ host: 'three', realtime: realtime - 10_000 })
      .state(900, 'RESUMING')
      .bytes(10_600, 'in', 1024);
    const moved = timelineOf(source(), middle, last).recordings.map(({ clock }) => clock.moved);
    expect(moved).toEqual([0, 9950, 9850]);
  });

  it('tell nothing of devices that have nothing to do with each other', () => {
    const other = new Tape({ host: 'two', realtime: realtime - 10_000 }).bytes(1, 'in', 7, 'other');
    expect(timelineOf(source(), other).recordings.map(({ clock }) => clock.moved)).toEqual([0, 0]);
  });

  it('are compared by the device that has as many bytes if its name is another', () => {
    const other = new Tape({ host: 'two', realtime: realtime - 10_000 }).bytes(1000, 'in', 1124, 'other');
    expect(timelineOf(source(), other).recordings.map(({ clock }) => clock.moved)).toEqual([0, 11_600]);
  });
});

describe('flags', () => {
  const flagged = (...errors: { call: Parameters<Tape['access']>[0]['call']; errno: ErrnoName }[]): string[] => {
    const tape = new Tape();
    for (const error of errors) tape.access({ device: DEVICE, ...error });
    return timelineOf(tape).recordings.flatMap(({ flags }) => flags.map(({ kind, text }) => `${kind}: ${text}`));
  };

  it('are errors of migration, of the VMM or of the driver', () => {
    const write = {
      protocol: 'v1',
      call: 'register',
      access: 'write',
      register: 'device_state',
      value: 5,
      state: '(5)',
    } as const;
    expect(flagged({ call: write, errno: 'EINVAL' })).toEqual(['error: device_state <- 5 = EINVAL']);
    const tape = new Tape().state(5, 'STOP_COPY', DEVICE, [
      { time: new Tape().at(7), protocol: 'v2', call: 'set-state', state: 'STOP_COPY', errno: 'EIO' },
    ]);
    expect(timelineOf(tape).recordings[0]?.flags).toEqual([
      { time: 15, kind: 'error', device: DEVICE, text: 'driver: SET STOP_COPY = EIO' },
    ]);
  });

  it('are refused calls, and no answers to questions', () => {
    expect(
      flagged(
        { call: { protocol: 'v2', call: 'data', direction: 'out', errno: 'EAGAIN' }, errno: 'EAGAIN' },
        { call: { protocol: 'v2', call: 'data', direction: 'out', errno: 'ENOMSG' }, errno: 'ENOMSG' },
        { call: { protocol: 'vfio', call: 'ioctl', request: 'VFIO_DEVICE_GET_IRQ_INFO' }, errno: 'EINVAL' },
        { call: { protocol: 'vfio', call: 'ioctl', request: 'VFIO_CHECK_EXTENSION' }, errno: 'EINVAL' },
        {
          call: { protocol: 'vfio', call: 'ioctl', request: 'VFIO_DEVICE_FEATURE', feature: 'PROBE MIGRATION' },
          errno: 'ENOTTY',
        },
      ),
    ).toEqual([]);
    expect(
      flagged(
        { call: { protocol: 'vfio', call: 'pwrite64', offset: 3, bytes: 4 }, errno: 'EINVAL' },
        {
          call: { protocol: 'vfio', call: 'ioctl', request: 'VFIO_DEVICE_FEATURE', feature: 'SET MIGRATION' },
          errno: 'EINVAL',
        },
      ),
    ).toEqual(['error: pwrite64 of 4 B at 3 = EINVAL', 'error: VFIO_DEVICE_FEATURE SET MIGRATION = EINVAL']);
  });

  it('are takeovers, and ends that are not the end of the run', () => {
    const tape = source()
      .add({ kind: 'takeover', time: source().at(4), why: 'SIGKILL' })
      .add({ kind: 'cut', line: 9, bytes: 3 });
    expect(timelineOf(tape).recordings[0]?.flags).toEqual([
      { time: 4, kind: 'takeover', device: undefined, text: 'the supervisor died (SIGKILL)' },
      { time: 5000, kind: 'end', device: undefined, text: 'the recording is cut in line 9' },
    ]);
    const limited = new Tape().add({ kind: 'end', time: new Tape().at(9), why: 'limit' });
    expect(timelineOf(limited).recordings[0]?.flags).toMatchObject([
      { kind: 'end', text: 'the limit of the recording is reached' },
    ]);
  });

  it('need a header that is whole', () => {
    expect(() => readTimeline([[{ kind: 'cut', line: 1, bytes: 5 }]])).toThrow('recording: line 1: is cut');
  });
});
