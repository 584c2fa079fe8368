import { describe, expect, test } from 'vitest';
import { V2 } from '../../src/v2/states.ts';
import { join, noise } from '../support/bytes.ts';
import { failure, notYet, outcome } from '../support/errno.ts';
import { newVmm } from '../support/presented.ts';
import { TapeV1 } from '../support/tape-v1.ts';

const state = noise(30);

/** A driver that refuses 4 to 0: it resumes and runs. */
function refusingStop(): TapeV1 {
  const tape = new TapeV1();
  tape.refusals.set('4 0', { error: failure('EINVAL'), always: true });
  return tape;
}

describe('presentV2 on a driver that refuses 4 to 0', () => {
  test('RESUMING to RUNNING is 4 to 1', () => {
    const { tape, device, begin } = newVmm(refusingStop());
    begin(V2.RESUMING).write(state.subarray(0, 10));
    device.setState(V2.RUNNING);
    expect(tape.states).toEqual([0, 4, 1]);
    expect([device.getState(), join(tape.loaded)]).toEqual([V2.RUNNING, state.subarray(0, 10)]);
  });

  test.each([
    ['RUNNING', [1]],
    ['STOP_COPY', [1, 2]],
    ['PRE_COPY', [1, 3]],
    ['RESUMING', [1, 4]],
  ] as const)('STOP is held back, and sent with the request for %s as %j', (name, writes) => {
    const { tape, device, begin } = newVmm(refusingStop());
    const old = begin(V2.RESUMING);
    expect(device.setState(V2.STOP)).toBeUndefined();
    expect([device.getState(), tape.state]).toEqual([V2.STOP, 4]);
    expect(outcome(() => old.write(new Uint8Array(1)))).toBe('ENODEV');
    tape.states.length = 0;
    const session = device.setState(V2[name]);
    expect(tape.states).toEqual(writes);
    expect(device.getState()).toBe(V2[name]);
    expect(session !== undefined).toBe(name !== 'RUNNING');
  });

  test('STOP again is nothing', () => {
    const { tape, device, begin } = newVmm(refusingStop());
    begin(V2.RESUMING);
    device.setState(V2.STOP);
    device.setState(V2.STOP);
    expect([device.getState(), tape.state]).toEqual([V2.STOP, 4]);
  });

  test('a refusal of 4 to 1 leads back to RESUMING, whose data fd goes on', () => {
    const tape = refusingStop();
    tape.refusals.set('4 1', { error: failure('EINVAL') });
    const { device, begin } = newVmm(tape);
    const session = begin(V2.RESUMING);
    session.write(state.subarray(0, 10));
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('EINVAL');
    expect([device.getState(), tape.state]).toEqual([V2.RESUMING, 4]);
    expect(session.write(state.subarray(10, 30))).toBe(20);
    device.setState(V2.RUNNING);
    expect(join(tape.loaded)).toEqual(state.subarray(0, 30));
  });

  test('"not yet" at 4 to 1 keeps the stop that is shown', () => {
    const tape = refusingStop();
    tape.refusals.set('4 1', { error: notYet() });
    const { device, begin } = newVmm(tape);
    begin(V2.RESUMING);
    device.setState(V2.STOP);
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('EAGAIN');
    expect(device.getState()).toBe(V2.STOP);
    device.setState(V2.RUNNING);
    expect(device.getState()).toBe(V2.RUNNING);
  });

  test('"not yet" after a refusal of 4 to 1: the repetition is refused too, and leads back to RESUMING', () => {
    const tape = refusingStop();
    tape.refusals.set('4 1', { error: failure('EINVAL'), always: true });
    let notYets = 0;
    const writeDeviceState = tape.writeDeviceState.bind(tape);
    const readDeviceState = tape.readDeviceState.bind(tape);
    tape.writeDeviceState = (to: number): void => {
      if (to === 1 && tape.state === 4) notYets += 1;
      writeDeviceState(to);
    };
    tape.readDeviceState = (): number => {
      if (notYets !== 1) return readDeviceState();
      notYets += 1;
      throw notYet();
    };
    const { device, begin } = newVmm(tape, { offerP2P: true });
    begin(V2.RESUMING);
    device.setState(V2.RUNNING_P2P);
    expect(outcome(() => device.setState(V2.RESUMING))).toBe('EAGAIN');
    expect(device.getState()).toBe(V2.STOP);
    expect(outcome(() => device.setState(V2.RESUMING))).toBe('EINVAL');
    expect(device.getState()).toBe(V2.RESUMING);
    expect(device.openSession()?.write(state)).toBe(30);
  });

  test('4 to 1 that ends in ERROR is ERROR', () => {
    const tape = refusingStop();
    tape.refusals.set('4 1', { error: failure('EIO'), now: 6 });
    const { device, begin } = newVmm(tape);
    begin(V2.RESUMING);
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('EIO');
    expect([device.getState(), device.openSession()]).toEqual([V2.ERROR, undefined]);
    device.reset();
    expect(device.getState()).toBe(V2.RUNNING);
  });

  test('a reset, by the user or behind, forgets it', () => {
    for (const behind of [true, false]) {
      const { tape, device, begin } = newVmm(refusingStop());
      begin(V2.RESUMING);
      device.setState(V2.STOP);
      if (behind) tape.reset();
      else device.reset();
      expect(device.getState()).toBe(V2.RUNNING);
      begin(V2.RESUMING);
      expect(device.getState()).toBe(V2.RESUMING);
    }
  });

  test('with P2P offered, RUNNING_P2P is held back too', () => {
    const { tape, device, begin } = newVmm(refusingStop(), { offerP2P: true });
    begin(V2.RESUMING);
    device.setState(V2.RUNNING_P2P);
    expect([device.getState(), tape.state]).toEqual([V2.RUNNING_P2P, 4]);
    device.setState(V2.STOP);
    expect([device.getState(), tape.state]).toEqual([V2.STOP, 4]);
    device.setState(V2.RUNNING);
    expect(tape.states).toEqual([0, 4, 1]);
  });

  test('another errno of 4 to 0 is no refusal', () => {
    const tape = new TapeV1();
    tape.refusals.set('4 0', { error: failure('EIO') });
    const { device, begin } = newVmm(tape);
    begin(V2.RESUMING);
    expect(outcome(() => device.setState(V2.STOP))).toBe('EIO');
    expect(device.getState()).toBe(V2.RESUMING);
  });
});

describe('presentV2 on a driver that enters RESUMING from RUNNING only', () => {
  test.each(['RUNNING', 'STOP', 'STOP_COPY', 'PRE_COPY'] as const)('from %s: 1, then 4', (name) => {
    const tape = new TapeV1();
    tape.refusals.set('0 4', { error: failure('EINVAL'), always: true });
    const { device, begin } = newVmm(tape);
    if (name !== 'RUNNING') device.setState(V2[name]);
    const session = begin(V2.RESUMING);
    expect(tape.states.slice(-3)).toEqual([0, 1, 4]);
    expect(device.getState()).toBe(V2.RESUMING);
    session.write(state.subarray(0, 10));
    device.setState(V2.RUNNING);
    expect(join(tape.loaded)).toEqual(state.subarray(0, 10));
  });

  test('that refuses it from RUNNING as well: the errno, and RUNNING', () => {
    const tape = new TapeV1();
    for (const write of ['0 4', '1 4']) tape.refusals.set(write, { error: failure('EINVAL'), always: true });
    const { device } = newVmm(tape);
    expect(outcome(() => device.setState(V2.RESUMING))).toBe('EINVAL');
    expect(device.openSession()).toBeUndefined();
    expect(device.getState()).toBe(V2.RUNNING);
  });
});
