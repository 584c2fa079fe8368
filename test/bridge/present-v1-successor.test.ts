import { describe, expect, test } from 'vitest';
import { PRESENT_V1_STATE_SIZE, presentV1, type PresentV1Options } from '../../src/bridge/index.ts';
import { isChange, stateIn, type DeviceEvent } from '../../src/device/device-event.ts';
import { observe } from '../../src/device/observe.ts';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import type { V1Device } from '../../src/v1/device.ts';
import { V1 } from '../../src/v1/states.ts';
import type { V2Device } from '../../src/v2/device.ts';
import { V2 } from '../../src/v2/states.ts';
import { noise } from '../support/bytes.ts';
import { failure, notYet, outcome, thrownBy } from '../support/errno.ts';
import { v2Sim } from '../support/sims.ts';
import { TapeV2 } from '../support/tape-v2.ts';
import { v1User, writeRegister } from '../support/v1-user.ts';

/** A bridge that is replaced by a new object over the same memory before each access of its user. */
function replaced(tape: TapeV2): { device: () => V1Device; user: () => ReturnType<typeof v1User> } {
  const dataSection = new Uint8Array(8192);
  const state = new Uint8Array(PRESENT_V1_STATE_SIZE);
  const device = (): V1Device => presentV1(tape, { dataSection, state });
  return { device, user: () => v1User(device()) };
}

describe('presentV1 state memory', () => {
  test('lets a new object go on anywhere in a save', () => {
    const tape = new TapeV2({
      answers: [noise(3000), 0, noise(700, 2), 0],
      stopAnswers: [noise(9000, 3)],
      stopCopyLength: 9000,
    });
    const { user } = replaced(tape);
    user().setState(V1.PRE_COPY);
    const received: Uint8Array[] = [];
    user().offset();
    received.push(user().buffer());
    user().pending();
    received.push(user().buffer());
    user().setState(V1.STOP_COPY);
    while (user().pending() > 0) {
      user().offset();
      received.push(user().buffer());
    }
    user().setState(V1.STOP);
    expect(received).toBeBytes([noise(3000), noise(700, 2), noise(9000, 3)]);
  });

  test('lets a new object go on anywhere in a data_size write', () => {
    const tape = new TapeV2();
    tape.writeAnswers.push(100, notYet(), 50, notYet());
    const { user, device } = replaced(tape);
    user().setState(V1.RESUMING);
    device().write(DATA_OFFSET, noise(5000));
    const results = Array.from({ length: 3 }, () => outcome(() => writeRegister(device(), 'data_size', 5000)));
    expect(results).toEqual(['EAGAIN', 'EAGAIN', 'OK']);
    expect(tape.taken).toBeBytes(noise(5000));
  });

  test('remembers virtual pre-copy, a deferred error and a loss', () => {
    const virtual = replaced(new TapeV2({ flags: 1 }));
    virtual.user().setState(V1.PRE_COPY);
    expect(virtual.user().state()).toBe(V1.PRE_COPY);

    const deferred = replaced(new TapeV2({ stopAnswers: [noise(10), failure('ENOMEM')] }));
    deferred.user().setState(V1.STOP_COPY);
    expect(deferred.user().buffer()).toHaveLength(10);
    expect(outcome(() => deferred.user().pending())).toBe('ENOMEM');

    const tape = new TapeV2({ answers: [noise(10)] });
    const lost = replaced(tape);
    lost.user().setState(V1.PRE_COPY);
    lost.user().buffer();
    tape.reset();
    expect(outcome(() => lost.user().pending())).toBe('EIO');
    expect(outcome(() => lost.user().pending())).toBe('EIO');
    lost.user().setState(V1.RUNNING);
    expect(outcome(() => lost.user().pending())).toBe('OK');
  });

  test('that is too small is refused', () => {
    expect(() => presentV1(new TapeV2(), { state: new Uint8Array(PRESENT_V1_STATE_SIZE - 1) })).toThrow(RangeError);
  });
});

describe('presentV1 options', () => {
  test.each([0, 1, 4095, 4097, 10_000])('a data section of %i bytes is refused', (size) => {
    expect(thrownBy(() => presentV1(new TapeV2(), { dataSection: new Uint8Array(size) }))).toMatchObject({
      code: 'ERR_ARGUMENT',
      message: `data section: ${size} bytes is not a multiple of 4096`,
    });
  });

  test('the data section is 16 MiB unless given', () => {
    const device = presentV1(new TapeV2());
    expect([device.regionSize, device.dataSection]).toEqual([
      2 ** 24 + DATA_OFFSET,
      { offset: DATA_OFFSET, size: 2 ** 24 },
    ]);
  });
});

/** A presented device, its user, and what is seen of the states: the user's side, and the driver's. */
function seenOf(
  device: V2Device,
  options: PresentV1Options = {},
): { user: ReturnType<typeof v1User>; seen: string[]; reset(): void } {
  const seen: string[] = [];
  const note = (event: DeviceEvent): void => {
    const state = stateIn(event);
    if (state !== undefined && isChange(event)) seen.push(`${event.protocol} ${state}`);
    else if (event.protocol === 'v2' && state === 'ERROR') seen.push('v2 has failed');
  };
  const driver = observe({ protocol: 'v2', device }, note);
  const presented = observe({ protocol: 'v1', device: presentV1(driver.device, options) }, note);
  return { user: v1User(presented.device), seen, reset: () => presented.device.reset() };
}

describe('presentV1, observed on both sides', () => {
  test('asks the driver for each state once', () => {
    const { user, seen } = seenOf(v2Sim('qat,size=8K').device);
    user.setState(V1.PRE_COPY);
    user.setState(V1.PRE_COPY);
    user.setState(V1.STOP_COPY);
    user.drain();
    user.setState(V1.STOP);
    const changes = ['PRE_COPY', 'STOP_COPY', 'STOP'].flatMap((state) => [`v2 ${state}`, `v1 ${state}`]);
    expect(seen).toEqual(changes.toSpliced(2, 0, 'v1 PRE_COPY'));
  });

  test.each([
    ['reset', ['v2 STOP_COPY', 'v1 STOP_COPY', 'v2 has failed', 'v2 has failed', 'v2 RUNNING']],
    ['report', ['v2 STOP_COPY', 'v1 STOP_COPY', ...Array<string>(4).fill('v2 has failed')]],
  ] as const)('finds out that a device has failed by itself: onError %s', (onError, expected) => {
    const tape = new TapeV2();
    const { user, seen } = seenOf(tape, { onError });
    user.setState(V1.STOP_COPY);
    tape.fail();
    user.state();
    user.state();
    expect(seen).toEqual(expected);
  });

  test('takes a device back that a failed request left on its way', () => {
    const tape = new TapeV2();
    const { user, seen } = seenOf(tape);
    user.setState(V1.STOP_COPY);
    tape.failingHops.push({ hop: V2.RUNNING_P2P, error: failure('EBUSY') });
    expect(outcome(() => user.setState(V1.RUNNING))).toBe('EBUSY');
    expect([seen, tape.state]).toEqual([['v2 STOP_COPY', 'v1 STOP_COPY'], V2.STOP]);
  });

  test('asks for nothing in virtual pre-copy, and resets what is reset', () => {
    const { user, seen, reset } = seenOf(v2Sim('pds,size=100').device);
    user.setState(V1.PRE_COPY);
    user.setState(V1.RUNNING);
    user.setState(V1.RESUMING);
    user.load(noise(10));
    reset();
    expect(seen).toEqual(['v1 PRE_COPY', 'v1 RUNNING', 'v2 RESUMING', 'v1 RESUMING', 'v2 RUNNING', 'v1 RUNNING']);
  });
});

test('presentV1 with onError report tells the operator of each failure once', () => {
  const warnings: string[] = [];
  const tape = new TapeV2();
  const device = presentV1(tape, { onError: 'report', warn: (message) => warnings.push(message) });
  const user = v1User(device);
  for (let failures = 1; failures <= 2; failures += 1) {
    tape.fail();
    user.state();
    user.state();
    expect(warnings).toEqual(Array<string>(failures).fill('the device is in ERROR'));
    device.reset();
    user.state();
  }
});
