import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { RecordingEntry } from '../../src/recording/reader.ts';
import { readTimeline } from '../../src/timeline/timeline.ts';
import { traceEventsOf } from '../../src/timeline/trace-events.ts';
import { recordings } from '../recording/lines.ts';
import { numRuns } from '../support/runs.ts';
import { DEVICE, destination, source, Tape } from './tape.ts';

interface Event {
  readonly name: string;
  readonly ph: string;
  readonly pid: number;
  readonly tid?: number;
  readonly ts?: number;
  readonly dur?: number;
  readonly cat?: string;
  readonly s?: string;
  readonly args?: Readonly<Record<string, unknown>>;
}

function eventsOf(...lines: readonly (readonly RecordingEntry[])[]): Event[] {
  const text = [...traceEventsOf(readTimeline(lines), lines)].join('');
  const trace = JSON.parse(text) as { traceEvents: Event[]; displayTimeUnit: string };
  expect(trace.displayTimeUnit).toBe('ms');
  return trace.traceEvents;
}

const METADATA: Readonly<Record<string, 'string' | 'number'>> = {
  process_name: 'string',
  process_sort_index: 'number',
  thread_name: 'string',
  thread_sort_index: 'number',
};

/**
 * What "Trace Event Format" (Google, 2016) asks of an event: its phase, name, process and thread, and but for metadata a time; of a
 * complete event ("X") a duration; of a counter ("C") numbers; of an instant ("i") a scope; of metadata ("M") the argument of its kind.
 * Perfetto adheres to that, and draws these phases (docs/getting-started/other-formats.md, v54).
 */
function complaint({ name, ph, pid, tid, ts, dur, s, args = {} }: Event): string | undefined {
  const isTime = (value: unknown): boolean => typeof value === 'number' && Number.isFinite(value);
  if (typeof name !== 'string' || !Number.isSafeInteger(pid)) return 'name or pid';
  switch (ph) {
    case 'M': {
      const argument = name.endsWith('_name') ? 'name' : 'sort_index';
      return typeof args[argument] === METADATA[name] ? undefined : 'metadata';
    }
    case 'X':
      return Number.isSafeInteger(tid) && isTime(ts) && isTime(dur) && Number(dur) >= 0 ? undefined : 'complete event';
    case 'C':
      return isTime(ts) && Object.keys(args).length > 0 && Object.values(args).every(isTime) ? undefined : 'counter';
    case 'i':
      return isTime(ts) && ['g', 'p', 't'].includes(s ?? '') ? undefined : 'instant';
    default:
      return 'phase';
  }
}

/** Complete events of one thread must lie within each other, or apart, as the format says and Perfetto needs: these do not. */
function overlaps(events: readonly Event[]): Event[] {
  const complete = events.filter(({ ph }) => ph === 'X');
  const threads = new Set(complete.map(({ pid, tid }) => `${pid} ${tid}`));
  return [...threads].flatMap((thread) => {
    const open: number[] = [];
    return complete
      .filter(({ pid, tid }) => thread === `${pid} ${tid}`)
      .toSorted((one, other) => (one.ts ?? 0) - (other.ts ?? 0) || (other.dur ?? 0) - (one.dur ?? 0))
      .filter(({ ts = 0, dur = 0 }) => {
        while (open.length > 0 && ts >= (open.at(-1) ?? 0)) open.pop();
        const isOver = ts + dur > (open.at(-1) ?? Infinity);
        open.push(ts + dur);
        return isOver;
      });
  });
}

describe('trace events', () => {
  const events = eventsOf(source().entries, destination().entries);

  it('are what the format says', () => {
    expect(events.filter((event) => complaint(event) !== undefined)).toEqual([]);
    expect(overlaps(events)).toEqual([]);
  });

  it('have a process for the states of each recording, one for its accesses, and one for the downtime', () => {
    expect(events.flatMap(({ name, pid, args }) => (name === 'process_name' ? [[pid, args?.['name']]] : []))).toEqual([
      [1, 'downtime'],
      [2, 'source: one, vfio-shim run: states'],
      [3, 'source: one, vfio-shim run: accesses of the VMM'],
      [4, 'destination: two, vfio-shim run: states'],
      [5, 'destination: two, vfio-shim run: accesses of the VMM'],
    ]);
  });

  it('have each state and each access, with its time and what it took', () => {
    const complete = events.filter(({ ph }) => ph === 'X').map(({ name, pid, ts, dur }) => [pid, name, ts, dur]);
    expect(complete).toEqual(
      expect.arrayContaining([
        [1, 'downtime', 2000, 1000],
        [2, 'STOP_COPY', 2010, 700],
        [3, 'device_state <- 2 (STOP_COPY)', 2000, 10],
        [5, 'data_size <- 1000 B', 2550, 20],
      ]),
    );
    expect(complete.filter(([pid]) => pid === 3)).toHaveLength(6);
  });

  it('count the bytes', () => {
    const counters = events
      .filter(({ ph }) => ph === 'C')
      .map(({ pid, name, ts, args }) => [pid, name, ts, args?.['bytes']]);
    expect(counters).toEqual([
      [2, `${DEVICE} bytes out`, 1500, 100],
      [2, `${DEVICE} bytes out`, 2500, 1100],
      [2, `${DEVICE} bytes out`, 2600, 1124],
      [4, `${DEVICE} bytes in`, 1600, 100],
      [4, `${DEVICE} bytes in`, 2550, 1100],
      [4, `${DEVICE} bytes in`, 2650, 1124],
    ]);
  });

  it('mark takeovers and errors', () => {
    const tape = source()
      .access({
        begin: source().at(2100),
        device: DEVICE,
        errno: 'EIO',
        call: { protocol: 'v2', call: 'data', direction: 'out', errno: 'EIO' },
      })
      .add({ kind: 'takeover', time: source().at(2200), why: 'SIGKILL' });
    const instants = eventsOf(tape.entries).filter(({ ph }) => ph === 'i');
    expect(instants.map(({ cat, name, ts }) => [cat, name, ts])).toEqual([
      ['error', 'read data = EIO', 2101],
      ['takeover', 'the supervisor died (SIGKILL)', 2200],
    ]);
  });

  it('have the calls of save and restore, and their bytes', () => {
    const tape = new Tape({ command: 'save' }).add({
      kind: 'driver',
      time: new Tape().at(10),
      device: DEVICE,
      call: { protocol: 'v2', call: 'data', direction: 'out', bytes: 7 },
      data: { bytes: 7, sha256: '0'.repeat(64) },
    });
    expect(eventsOf(tape.entries).slice(-2)).toMatchObject([
      { ph: 'i', name: 'read data 7 B', ts: 10 },
      { ph: 'C', args: { bytes: 7 } },
    ]);
  });

  it('are what the format says for any recording', () => {
    fc.assert(
      fc.property(fc.array(recordings, { minLength: 1, maxLength: 3 }), (lines) => {
        const made = eventsOf(...lines);
        expect(made.filter((event) => complaint(event) !== undefined)).toEqual([]);
        expect(overlaps(made)).toEqual([]);
      }),
      { numRuns: numRuns(50) },
    );
  });
});
