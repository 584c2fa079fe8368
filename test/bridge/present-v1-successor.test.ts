import { describe, expect, test } from 'vitest';
import { PRESENT_V1_STATE_SIZE, presentV1 } from '../../src/bridge/index.ts';
import type { V1Device } from '../../src/v1/device.ts';
import { V2 } from '../../src/v2/states.ts';
import { join, noise } from '../support/bytes.ts';
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
    user().setState(3);
    const received: Uint8Array[] = [];
    user().offset();
    received.push(user().buffer());
    user().pending();
    received.push(user().buffer());
    user().setState(2);
    while (user().pending() > 0) {
      user().offset();
      received.push(user().buffer());
    }
    user().setState(0);
    expect(received).toBeBytes([noise(3000), noise(700, 2), noise(9000, 3)]);
  });

  test('lets a new object go on anywhere in a data_size write', () => {
    const tape = new TapeV2();
    tape.writeAnswers.push(100, notYet(), 50, notYet());
    const { user, device } = replaced(tape);
    user().setState(4);
    device().write(4096, noise(5000));
    const results = Array.from({ length: 3 }, () => outcome(() => writeRegister(device(), 'data_size', 5000)));
    expect(results).toEqual(['EAGAIN', 'EAGAIN', 'OK']);
    expect(tape.taken).toBeBytes(noise(5000));
  });

  test('remembers virtual pre-copy, a deferred error and a loss', () => {
    const virtual = replaced(new TapeV2({ flags: 1 }));
    virtual.user().setState(3);
    expect(virtual.user().state()).toBe(3);

    const deferred = replaced(new TapeV2({ stopAnswers: [noise(10), failure('ENOMEM')] }));
    deferred.user().setState(2);
    expect(deferred.user().buffer()).toHaveLength(10);
    expect(outcome(() => deferred.user().pending())).toBe('ENOMEM');

    const tape = new TapeV2({ answers: [noise(10)] });
    const lost = replaced(tape);
    lost.user().setState(3);
    lost.user().buffer();
    tape.reset();
    expect(outcome(() => lost.user().pending())).toBe('EIO');
    expect(outcome(() => lost.user().pending())).toBe('EIO');
    lost.user().setState(1);
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
    expect([device.regionSize, device.dataSection]).toEqual([2 ** 24 + 4096, { offset: 4096, size: 2 ** 24 }]);
  });
});

describe('presentV1 events', () => {
  test('tell of each state once, in both protocols, and of every byte', () => {
    const seen: string[] = [];
    const { device } = v2Sim('qat,size=8K');
    const user = v1User(
      presentV1(device, {
        dataSection: new Uint8Array(4096),
        events: {
          state: (v1, v2) => seen.push(`state ${v1} ${v2}`),
          moved: (direction, bytes) => seen.push(`${direction} ${bytes}`),
        },
      }),
    );
    user.setState(3);
    user.setState(3);
    user.buffer();
    user.setState(2);
    const buffers = user.drain();
    user.setState(0);
    expect(join(buffers)).toHaveLength(8192);
    expect(seen).toEqual([
      `state 3 ${V2.PRE_COPY}`,
      `state 2 ${V2.STOP_COPY}`,
      'out 32',
      'out 4096',
      'out 4096',
      `state 0 ${V2.STOP}`,
    ]);
  });

  test.each([
    ['reset', ['state 2 3', 'state 1 2']],
    ['report', ['state 2 3', 'state 6 0']],
  ] as const)('tell where a device is that failed by itself, once: onError %s', (onError, expected) => {
    const seen: string[] = [];
    const tape = new TapeV2();
    const events = { state: (v1: number, v2: number): number => seen.push(`state ${v1} ${v2}`) };
    const user = v1User(presentV1(tape, { onError, events }));
    user.setState(2);
    tape.fail();
    user.state();
    user.state();
    expect(seen).toEqual(expected);
  });

  test('tell where a device is that a failed request left on its way', () => {
    const seen: string[] = [];
    const tape = new TapeV2();
    const events = { state: (v1: number, v2: number): number => seen.push(`state ${v1} ${v2}`) };
    const user = v1User(presentV1(tape, { events }));
    user.setState(2);
    tape.failingHops.push({ hop: V2.RUNNING_P2P, error: failure('EBUSY') });
    expect(outcome(() => user.setState(1))).toBe('EBUSY');
    expect(seen).toEqual(['state 2 3', 'state 0 1']);
  });

  test('tell where a device is that was reset behind its user', () => {
    const seen: string[] = [];
    const tape = new TapeV2();
    const events = { state: (v1: number, v2: number): number => seen.push(`state ${v1} ${v2}`) };
    const user = v1User(presentV1(tape, { events }));
    user.setState(3);
    tape.reset();
    user.state();
    expect(seen).toEqual(['state 3 6', 'state 1 2']);
  });

  test('tell of virtual pre-copy, of what came in and of a reset', () => {
    const seen: string[] = [];
    const { device } = v2Sim('pds,size=100');
    const bridged = presentV1(device, {
      events: {
        state: (v1, v2) => seen.push(`state ${v1} ${v2}`),
        moved: (direction, bytes) => seen.push(`${direction} ${bytes}`),
      },
    });
    const user = v1User(bridged);
    user.setState(3);
    user.setState(1);
    user.setState(4);
    user.load(noise(10));
    bridged.reset();
    expect(seen).toEqual(['state 3 2', 'state 1 2', 'state 4 4', 'in 10', 'state 1 2']);
  });
});
