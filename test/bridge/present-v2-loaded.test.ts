import { describe, expect, test } from 'vitest';
import { V2 } from '../../src/v2/states.ts';
import { join, noise } from '../support/bytes.ts';
import { failure, notYet, outcome, thrownBy } from '../support/errno.ts';
import { newVmm } from '../support/presented.ts';
import { TapeV1 } from '../support/tape-v1.ts';

const state = noise(30);

/*
 * A v1 driver may load on the write of 1 in 4 and on nothing else (HiSilicon's RFC of 2021: acc_vf_set_device_state), and no VMM
 * ever wrote another. A device in 4 does not run, so STOP is shown over it.
 */

describe('presentV2 STOP after RESUMING', () => {
  test('RESUMING to RUNNING is 4 to 1', () => {
    const { tape, device, begin } = newVmm();
    begin(V2.RESUMING).write(state.subarray(0, 10));
    device.setState(V2.RUNNING);
    expect(tape.states).toEqual([4, 1]);
    expect([device.getState(), join(tape.loaded)]).toEqual([V2.RUNNING, state.subarray(0, 10)]);
  });

  test.each([
    ['RUNNING', [1]],
    ['PRE_COPY', [1, 3]],
    ['STOP', []],
  ] as const)('is shown over 4, and what %s needs is %j', (name, writes) => {
    const { tape, device, begin } = newVmm();
    const old = begin(V2.RESUMING);
    expect(device.setState(V2.STOP)).toBeUndefined();
    expect([device.getState(), tape.state]).toEqual([V2.STOP, 4]);
    expect(outcome(() => old.write(new Uint8Array(1)))).toBe('ENODEV');
    tape.states.length = 0;
    const session = device.setState(V2[name]);
    expect(tape.states).toEqual(writes);
    expect(device.getState()).toBe(V2[name]);
    expect(session !== undefined).toBe(name === 'PRE_COPY');
  });

  test.each(['STOP_COPY', 'RESUMING'] as const)(
    'a device that was loaded and has never run does not go to %s: it would have to run, or load on top',
    (name) => {
      const { tape, device, begin, spy } = newVmm();
      begin(V2.RESUMING).write(state);
      device.setState(V2.STOP);
      spy.changes.length = 0;
      expect(thrownBy(() => device.setState(V2[name]))).toMatchObject({
        code: 'ERR_TRANSITION',
        errno: 'EINVAL',
        message:
          'device_state: the device was loaded and has never run, and a v1 driver leads from RESUMING to RUNNING only: let it run first',
      });
      expect([device.getState(), tape.state, spy.changes]).toEqual([V2.STOP, 4, []]);
      device.setState(V2.RUNNING);
      device.setState(V2[name]);
      expect(device.getState()).toBe(V2[name]);
    },
  );

  test('the data is handed over before STOP is shown', () => {
    const { tape, device, begin } = newVmm();
    begin(V2.RESUMING).write(state);
    device.setState(V2.STOP);
    expect(join(tape.loaded)).toEqual(state);
  });

  test.each([false, true])(
    'a refusal of 4 to 1 leads back to RESUMING, whose data fd goes on; STOP shown: %s',
    (stop) => {
      const tape = new TapeV1();
      tape.refusals.set('4 1', { error: failure('EINVAL') });
      const { device, begin } = newVmm(tape);
      const session = begin(V2.RESUMING);
      session.write(state.subarray(0, 10));
      if (stop) device.setState(V2.STOP);
      expect(outcome(() => device.setState(V2.RUNNING))).toBe('EINVAL');
      expect([device.getState(), tape.state]).toEqual([V2.RESUMING, 4]);
      expect(session.write(state.subarray(10, 30))).toBe(20);
      device.setState(V2.RUNNING);
      expect(join(tape.loaded)).toEqual(state.subarray(0, 30));
    },
  );

  test('"not yet" at 4 to 1 keeps the stop that is shown', () => {
    const tape = new TapeV1();
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
    const tape = new TapeV1();
    tape.refusals.set('4 1', { error: failure('EINVAL'), always: true });
    let refused = false;
    const writeDeviceState = tape.writeDeviceState.bind(tape);
    const readDeviceState = tape.readDeviceState.bind(tape);
    tape.writeDeviceState = (to: number): void => {
      refused = to === 1 && tape.state === 4;
      writeDeviceState(to);
    };
    let notYets = 1;
    tape.readDeviceState = (): number => {
      if (!refused || notYets === 0) return readDeviceState();
      notYets -= 1;
      throw notYet();
    };
    const { device, begin } = newVmm(tape, { offerP2P: true });
    begin(V2.RESUMING);
    device.setState(V2.RUNNING_P2P);
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('EAGAIN');
    expect(device.getState()).toBe(V2.RUNNING_P2P);
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('EINVAL');
    expect(device.getState()).toBe(V2.RESUMING);
    expect(device.openSession()?.write(state)).toBe(30);
  });

  test('4 to 1 that ends in ERROR is ERROR', () => {
    const tape = new TapeV1();
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
      const { tape, device, begin } = newVmm();
      begin(V2.RESUMING);
      device.setState(V2.STOP);
      if (behind) tape.reset();
      else device.reset();
      expect(device.getState()).toBe(V2.RUNNING);
      begin(V2.RESUMING);
      expect(device.getState()).toBe(V2.RESUMING);
    }
  });

  test('with P2P offered, RUNNING_P2P is shown over 4 too', () => {
    const { tape, device, begin } = newVmm(new TapeV1(), { offerP2P: true });
    begin(V2.RESUMING);
    device.setState(V2.RUNNING_P2P);
    expect([device.getState(), tape.state]).toEqual([V2.RUNNING_P2P, 4]);
    device.setState(V2.STOP);
    expect([device.getState(), tape.state]).toEqual([V2.STOP, 4]);
    expect(outcome(() => device.setState(V2.PRE_COPY_P2P))).toBe('EINVAL');
    device.setState(V2.RUNNING);
    expect(tape.states).toEqual([4, 1]);
  });
});

describe('presentV2 RESUMING of a stopped device', () => {
  test('that the driver takes from RUNNING only: its errno, and the device does not run for it', () => {
    const tape = new TapeV1();
    tape.refusals.set('0 4', { error: failure('EINVAL'), always: true });
    const { device, spy, begin } = newVmm(tape);
    device.setState(V2.STOP);
    expect(outcome(() => device.setState(V2.RESUMING))).toBe('EINVAL');
    expect([device.getState(), device.openSession()]).toEqual([V2.STOP, undefined]);
    device.setState(V2.RUNNING);
    begin(V2.RESUMING).write(state);
    device.setState(V2.RUNNING);
    expect(join(tape.loaded)).toEqual(state);
    expect(spy.changes).toEqual(['1>0', '0>4', '0>1', '1>4', '4>1']);
  });
});
