import { describe, expect, test } from 'vitest';
import { presentV1, presentV2 } from '../../src/bridge/index.ts';
import { V2 } from '../../src/v2/states.ts';
import { noise } from '../support/bytes.ts';
import { failure, outcome, thrownBy } from '../support/errno.ts';
import { newVmm, readSome } from '../support/presented.ts';
import { TapeV1 } from '../support/tape-v1.ts';
import { TapeV2 } from '../support/tape-v2.ts';

const state = noise(30);

describe('presentV2 of a driver that refuses a write of device_state', () => {
  test('0 to 1 with EINVAL: its own error, and nothing is learnt of stops', () => {
    const tape = new TapeV1();
    tape.refusals.set('0 1', { error: failure('EINVAL') });
    const { device } = newVmm(tape);
    device.setState(V2.STOP);
    expect(thrownBy(() => device.setState(V2.RUNNING)).message).toBe('injected EINVAL');
    device.setState(V2.STOP_COPY);
    device.setState(V2.RUNNING);
    device.setState(V2.STOP);
    expect(tape.states).toEqual([0, 2, 1, 0]);
  });

  test('3 to 2 on the way from 1 with EINVAL: its own error, and nothing is learnt of stops', () => {
    const tape = new TapeV1();
    tape.refusals.set('3 2', { error: failure('EINVAL') });
    const { device } = newVmm(tape);
    expect(thrownBy(() => device.setState(V2.STOP_COPY)).message).toBe('injected EINVAL');
    device.setState(V2.STOP);
    expect(tape.states).toEqual([3, 1, 0]); // it runs again
  });

  test('3 to 2 on the way from 1 with EINVAL, and stops: its own error, and nothing is learnt of stops', () => {
    const tape = new TapeV1();
    tape.refusals.set('3 2', { error: failure('EINVAL'), now: 0 });
    const { device } = newVmm(tape);
    expect(thrownBy(() => device.setState(V2.STOP_COPY)).message).toBe('injected EINVAL');
    expect(device.getState()).toBe(V2.RUNNING); // as before
    expect(outcome(() => device.setState(V2.STOP_COPY))).toBe('OK');
  });

  test('0 is a stop of its own: what somebody else makes of the device then is shown as it is', () => {
    const { tape, device } = newVmm();
    device.setState(V2.STOP);
    tape.state = 2;
    expect(device.getState()).toBe(V2.STOP_COPY);
  });

  test('1 to 0 on the way from pre-copy: what somebody else makes of the device then is shown as it is', () => {
    const tape = new TapeV1();
    tape.refusals.set('1 0', { error: failure('EBUSY') });
    const { device, begin } = newVmm(tape);
    begin(V2.PRE_COPY);
    expect(outcome(() => device.setState(V2.STOP))).toBe('EBUSY');
    tape.state = 2;
    expect(device.getState()).toBe(V2.STOP_COPY);
  });

  test('0 to 2 with EINVAL, and shows ERROR: its own error, and nothing is learnt of stops', () => {
    const tape = new TapeV1();
    tape.refusals.set('0 2', { error: failure('EINVAL'), now: 6 });
    const { device } = newVmm(tape);
    device.setState(V2.STOP);
    expect(thrownBy(() => device.setState(V2.STOP_COPY)).message).toBe('injected EINVAL');
    expect(device.getState()).toBe(V2.ERROR);
    device.reset();
    device.setState(V2.STOP);
    expect(tape.state).toBe(0);
  });

  test('2 to 1, if 2 was written as a stop: the stop goes on', () => {
    const tape = new TapeV1({ stopCopy: [state] });
    tape.refusals.set('2 1', { error: failure('EBUSY') });
    const { device } = newVmm(tape, { stopBySaving: true });
    device.setState(V2.STOP);
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('EBUSY');
    expect([device.getState(), tape.state, device.openSession()]).toEqual([V2.STOP, 2, undefined]);
  });

  test('4 to 1 with ERROR, if a stop was shown: no session comes back', () => {
    const tape = new TapeV1();
    tape.refusals.set('4 1', { error: failure('EIO'), now: 6 });
    const { device, warnings, begin } = newVmm(tape);
    begin(V2.RESUMING);
    device.setState(V2.STOP);
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('EIO');
    expect([device.getState(), device.openSession(), warnings]).toEqual([V2.ERROR, undefined, []]);
  });
});

test('presentV2 of a device that is found in device_state 4, and refuses 4 to 1: no session begins', () => {
  const tape = new TapeV1();
  tape.state = 4;
  tape.refusals.set('4 1', { error: failure('EINVAL') });
  const { device } = newVmm(tape);
  expect(outcome(() => device.setState(V2.RUNNING))).toBe('EINVAL');
  expect([device.getState(), device.openSession()]).toEqual([V2.RESUMING, undefined]);
});

describe('presentV2 of a device that is found in device_state 2 without a session', () => {
  test.each([
    [true, []],
    [false, [0]],
  ])('writes, for a stop, if the driver stops by saving: %s, %j', (stopBySaving, writes) => {
    const tape = new TapeV1({ stopCopy: [state] });
    tape.state = 2; // a predecessor was killed behind the write
    const device = presentV2(tape.device, { stopBySaving });
    device.setState(V2.STOP);
    expect([tape.states, device.getState()]).toEqual([writes, V2.STOP]);
  });

  test('says the estimate, since nothing is being read', () => {
    const tape = new TapeV1({ stopCopy: [state] });
    tape.state = 2;
    expect(presentV2(tape.device, { stopCopyEstimate: 100_000 }).stopCopyLength()).toBe(100_000);
  });
});

describe('presentV2 data sessions that have ended', () => {
  test('by a reset: a v1 device that would tell its user of the loss is asked to run, and tells nobody else', () => {
    const device = presentV2(
      presentV1(new TapeV2({ answers: [state], precopyInfo: { initialBytes: 30, dirtyBytes: 0 } })),
    );
    readSome(device.setState(V2.PRE_COPY), 10);
    device.reset();
    expect(outcome(() => device.setState(V2.PRE_COPY))).toBe('OK');
  });

  test('behind the user: the same', () => {
    const tape = new TapeV2({ answers: [state], precopyInfo: { initialBytes: 30, dirtyBytes: 0 } });
    const device = presentV2(presentV1(tape));
    const session = device.setState(V2.PRE_COPY);
    readSome(session, 10);
    tape.reset();
    expect(outcome(() => session?.read(new Uint8Array(1)))).toBe('ENODEV');
    expect(outcome(() => device.setState(V2.PRE_COPY))).toBe('OK');
  });

  test.each([2, 3, 4])('are none of a device that is found in device_state %i', (found) => {
    const { tape, device, warnings } = newVmm();
    tape.state = found;
    device.getState();
    expect([device.openSession(), warnings]).toEqual([undefined, []]);
  });

  test('or never began: a reset writes no device_state', () => {
    const { spy, device } = newVmm();
    device.reset();
    expect(spy.log).toEqual(['reset']);
  });

  test('behind the user, the device not running: nothing is written to it', () => {
    const { tape, spy, device, begin } = newVmm(new TapeV1({ preCopy: [state] }));
    begin(V2.PRE_COPY);
    spy.changes.length = 0;
    tape.state = 0;
    expect([device.getState(), device.openSession()]).toEqual([V2.STOP, undefined]);
    expect([spy.changes, tape.state]).toEqual([[], 0]);
  });

  test('are not revived by a device that somebody else brings to pre-copy, or by a new session', () => {
    const { tape, device, begin } = newVmm(new TapeV1({ preCopy: [state] }));
    const old = begin(V2.PRE_COPY);
    tape.reset();
    expect(device.getState()).toBe(V2.RUNNING);
    tape.state = 3;
    const all = [() => old.precopyInfo(), () => old.read(new Uint8Array(1))];
    expect(all.map((use) => outcome(use))).toEqual(['ENODEV', 'ENODEV']);
    device.setState(V2.RUNNING);
    expect(begin(V2.PRE_COPY).precopyInfo()).toEqual({ initialBytes: 30, dirtyBytes: 0 });
    expect(all.map((use) => outcome(use))).toEqual(['ENODEV', 'ENODEV']);
  });

  test('do not read ahead in the next one', () => {
    const { spy, device, begin } = newVmm(new TapeV1({ preCopy: [state, state] }));
    const old = begin(V2.PRE_COPY);
    device.setState(V2.RUNNING);
    readSome(begin(V2.PRE_COPY), 30);
    spy.log.length = 0;
    old.readAhead?.();
    expect(spy.log).toEqual([]);
  });

  test('with a buffer that was asked for and never seen: the next one begins with pending_bytes', () => {
    const { tape, spy, device, begin } = newVmm(new TapeV1({ preCopy: [state] }));
    const old = begin(V2.PRE_COPY);
    spy.options = {
      before: (_, what) => {
        if (what === 'data_size') throw failure('EREMOTEIO');
      },
    };
    expect(outcome(() => old.read(new Uint8Array(1)))).toBe('EREMOTEIO');
    spy.options = {};
    device.setState(V2.RUNNING);
    tape.reset();
    tape.preCopy.push(state);
    const next = begin(V2.PRE_COPY);
    spy.log.length = 0;
    readSome(next, 1);
    expect(spy.log.find((line) => !line.includes('device_state'))).toBe('read pending_bytes 30');
  });

  test('without a byte say nothing of what a save costs', () => {
    const { device, begin } = newVmm(new TapeV1({ stopCopy: [noise(60_000), noise(30_000)] }));
    const session = begin(V2.STOP_COPY);
    while (readSome(session, 65_536).length > 0);
    device.setState(V2.STOP);
    begin(V2.STOP_COPY);
    device.setState(V2.STOP);
    expect(device.stopCopyLength()).toBe(90_000);
  });

  test('in pre-copy, which is given up: what is left of the buffer is not fetched for nobody', () => {
    const { spy, device, begin } = newVmm(new TapeV1({ preCopy: [state] }));
    spy.options = { mapped: false };
    readSome(begin(V2.PRE_COPY), 10);
    spy.log.length = 0;
    device.setState(V2.STOP);
    expect(spy.log.filter((line) => line.startsWith('read data'))).toEqual([]);
  });
});

test('presentV2 asked for RESUMING again goes on with the transaction that it has begun', () => {
  const { tape, device, begin } = newVmm();
  const session = begin(V2.RESUMING);
  session.write(state.subarray(0, 10));
  expect(device.setState(V2.RESUMING)).toBeUndefined();
  expect(tape.loaded).toEqual([]);
  session.write(state.subarray(10));
  device.setState(V2.RUNNING);
  expect(tape.loaded.map((bytes) => bytes.length)).toEqual([30]);
  expect(tape.loaded).toBeBytes(state);
});
