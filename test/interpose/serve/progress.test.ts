import { describe, expect, it } from 'vitest';
import type { DeviceEvent } from '../../../src/device/device-event.ts';
import type { Protocol } from '../../../src/device/migratable.ts';
import { ProgressCounter, progressAt, stateNoted, type Progress } from '../../../src/interpose/serve/progress.ts';
import { statesOf } from '../../../src/interpose/serve/report.ts';

const SECOND = 1_000_000;

function noted(protocol: Protocol, events: readonly DeviceEvent[], now: number): Progress {
  const memory = new Uint8Array(128);
  // a successor for each event goes on
  for (const event of events) new ProgressCounter(memory, protocol, statesOf(protocol).numbers).ofDriver(event);
  const state = stateNoted(memory);
  const isStopped = state !== undefined && statesOf(protocol).name(state) === 'STOP_COPY';
  return progressAt(memory, protocol, isStopped, now);
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
    data(600, SECOND / 2),
    info(0, 700, SECOND / 2), // 400 should be left: 300 have become dirty
    data(200, SECOND / 2),
  ];

  it('is what pre-copy has done and left, how fast, and what stop-and-copy will take', () => {
    expect(noted('v2', preCopy, SECOND)).toEqual({
      phase: 'saving',
      bytesDone: 800,
      bytesLeft: 500,
      bytesPerSecond: 800,
      stopCopyBytes: 400,
      downtimeMs: 500,
      dirtyBytesPerSecond: 600,
    });
  });

  it('is, in stop-and-copy, what is left of that, and then what was done', () => {
    const stopped = [...preCopy, state('STOP_COPY', SECOND), data(100, SECOND)];
    expect(noted('v2', stopped, 2 * SECOND)).toMatchObject({ bytesDone: 900, bytesLeft: 300, stopCopyBytes: 300 });
    const ended = [...stopped, state('STOP', 2 * SECOND)];
    expect(noted('v2', ended, 2 * SECOND)).toMatchObject({ phase: null, bytesDone: 900, bytesLeft: null });
  });

  it('begins anew with another migration, and says nothing that it does not know', () => {
    const again = [...preCopy, state('RUNNING', SECOND), state('PRE_COPY', 2 * SECOND)];
    expect(noted('v2', again, 3 * SECOND)).toEqual({
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
    const { bytesDone, bytesLeft } = noted(
      'v2',
      [state('PRE_COPY', 0), data(most, 1), data(most, 2), info(most, most, 3)],
      4,
    );
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
      register('pending_bytes', 600, SECOND),
      register('data_size', 100, SECOND),
    ];
    expect(noted('v1', events, SECOND)).toEqual({
      phase: 'saving',
      bytesDone: 500,
      bytesLeft: 500,
      bytesPerSecond: 500,
      stopCopyBytes: 500,
      downtimeMs: 1000,
      dirtyBytesPerSecond: 0,
    });
  });
});
