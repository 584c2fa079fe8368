import { describe, expect, it } from 'vitest';
import type { DeviceEvent } from '../../../src/device/device-event.ts';
import type { Protocol } from '../../../src/device/migratable.ts';
import { ProgressCounter, progressIn, stateNoted, type Progress } from '../../../src/interpose/serve/progress.ts';
import { statesOf } from '../../../src/interpose/serve/report.ts';

const SECOND = 1_000_000;
const MS = 1000;

function noted(protocol: Protocol, events: readonly DeviceEvent[]): Progress {
  const memory = new Uint8Array(144);
  // a successor for each event goes on
  for (const event of events) new ProgressCounter(memory, protocol, statesOf(protocol).numbers).ofDriver(event);
  const state = stateNoted(memory);
  const isStopped = state !== undefined && statesOf(protocol).name(state) === 'STOP_COPY';
  return progressIn(memory, protocol, isStopped);
}

const state = (name: string, time: number): DeviceEvent => ({
  time,
  protocol: 'v2',
  call: 'set-state',
  state: name,
  session: true,
});
const data = (bytes: number, time: number): DeviceEvent => ({
  time,
  protocol: 'v2',
  call: 'data',
  direction: 'out',
  bytes,
});
const info = (initialBytes: number, dirtyBytes: number, time: number): DeviceEvent => ({
  time,
  protocol: 'v2',
  call: 'precopy-info',
  initialBytes,
  dirtyBytes,
});
const size = (bytes: number, time: number): DeviceEvent => ({ time, protocol: 'v2', call: 'data-size', bytes });

describe('the progress of a v2 driver', () => {
  const preCopy = [
    state('PRE_COPY', 0),
    info(1000, 0, 0),
    size(400, 0),
    data(0, 0),
    data(600, 50 * MS),
    info(0, 700, 50 * MS), // 400 should be left: 300 have become dirty
    data(200, 100 * MS),
  ];

  it('is what pre-copy has done and left, how fast, and what stop-and-copy will take', () => {
    expect(noted('v2', preCopy)).toEqual({
      phase: 'saving',
      bytesDone: 800,
      bytesLeft: 500,
      bytesPerSecond: 8000,
      stopCopyBytes: 400,
      downtimeMs: 50,
      dirtyBytesPerSecond: 6000,
    });
  });

  it('has a rate, of the last seconds in which pieces came one after the other', () => {
    const rateOf = (...pieces: readonly DeviceEvent[]): number | null =>
      noted('v2', [state('PRE_COPY', 0), ...pieces]).bytesPerSecond;
    expect(rateOf(data(100, 20 * MS))).toBe(null); // how long it took is not known
    const two = [data(7, 20 * MS), data(100, 40 * MS)];
    expect(rateOf(...two)).toBe(5000);
    expect(rateOf(...two, data(100, 3600 * SECOND))).toBe(5000); // the VMM has done something else
    expect(rateOf(...two, data(9, 3600 * SECOND), data(300, 3600 * SECOND + 20 * MS))).toBe(10_000);
    expect(rateOf(data(1, 0), data(100, 0))).toBe(null); // faster than the clock
    const pieces = Array.from({ length: 32 }, (_, n) => data(n < 11 ? 1 : 1000, n * 100 * MS));
    expect(rateOf(...pieces)).toBe(10_000); // what was slow is two seconds ago
  });

  it('counts no call that has failed', () => {
    const failed = { time: MS, protocol: 'v2', errno: 'EIO' } as const;
    const events: DeviceEvent[] = [
      { ...failed, call: 'data', direction: 'out' },
      { ...failed, call: 'precopy-info' },
      { ...failed, call: 'data-size' },
      { ...failed, call: 'set-state', state: 'STOP_COPY' },
    ];
    expect(noted('v2', [...preCopy, ...events])).toEqual(noted('v2', preCopy));
  });

  it('is, in stop-and-copy, what is left of that, and then what was done', () => {
    const stopped = [...preCopy, state('STOP_COPY', 100 * MS), data(100, 200 * MS)];
    expect(noted('v2', stopped)).toEqual({
      phase: 'saving',
      bytesDone: 900,
      bytesLeft: 300,
      bytesPerSecond: 4500,
      stopCopyBytes: 300,
      downtimeMs: 67,
      dirtyBytesPerSecond: null,
    });
    const ended = [...stopped, state('STOP', 2 * SECOND)];
    expect(noted('v2', ended)).toMatchObject({ phase: null, bytesDone: 900, bytesLeft: null, bytesPerSecond: null });
  });

  it('is, of what is loaded, how much and how fast', () => {
    const loading = [state('RESUMING', 0), data(500, 0), data(500, 50 * MS)];
    expect(noted('v2', loading)).toEqual({
      phase: 'loading',
      bytesDone: 1000,
      bytesLeft: null,
      bytesPerSecond: 10_000,
      stopCopyBytes: null,
      downtimeMs: null,
      dirtyBytesPerSecond: null,
    });
  });

  it('begins anew with another migration, and says nothing that it does not know', () => {
    const again = [...preCopy, state('RUNNING', SECOND), state('PRE_COPY', 2 * SECOND)];
    expect(noted('v2', again)).toEqual({
      phase: 'saving',
      bytesDone: 0,
      bytesLeft: null,
      bytesPerSecond: null,
      stopCopyBytes: null,
      downtimeMs: null,
      dirtyBytesPerSecond: null,
    });
  });

  it('is a number, whatever the driver says', () => {
    const most = Number.MAX_SAFE_INTEGER;
    const { bytesDone, bytesLeft } = noted('v2', [
      state('PRE_COPY', 0),
      data(most, 1),
      data(most, 2),
      info(most, most, 3),
    ]);
    expect([bytesDone, bytesLeft]).toEqual([most, most]);
  });
});

describe('the progress of a v1 driver', () => {
  const register = (
    name: 'device_state' | 'pending_bytes' | 'data_size',
    value: number,
    time: number,
  ): DeviceEvent => ({
    time,
    protocol: 'v1',
    call: 'register',
    access: name === 'device_state' ? 'write' : 'read',
    register: name,
    value,
  });

  it('counts each buffer once, however often its size is read', () => {
    const events = [
      register('device_state', 3, 0),
      register('pending_bytes', 1000, 0),
      register('data_size', 400, 0),
      register('data_size', 400, 0),
      register('pending_bytes', 600, 50 * MS),
      register('data_size', 100, 50 * MS),
    ];
    expect(noted('v1', events)).toEqual({
      phase: 'saving',
      bytesDone: 500,
      bytesLeft: 500,
      bytesPerSecond: 2000,
      stopCopyBytes: 500,
      downtimeMs: 250,
      dirtyBytesPerSecond: 0,
    });
  });
});
