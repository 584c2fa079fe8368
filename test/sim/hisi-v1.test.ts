import { describe, expect, test } from 'vitest';
import { noise } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';
import { v1Sim } from '../support/sims.ts';
import { v1User, writeRegister } from '../support/v1-user.ts';

const SETUP = 32;
const SIZE = 10_000;
const spec = `hisi-v1,size=${SIZE}`;

function opened(text = `${spec},seed=3`) {
  const sim = v1Sim(text);
  return { ...sim, user: v1User(sim.device) };
}

/** The match data and the state, as a source gives them. */
function saved(text = `${spec},seed=3`): { match: Uint8Array; state: Uint8Array } {
  const { user } = opened(text);
  user.setState(3);
  const [match = noise(0)] = user.drain();
  user.setState(2);
  const [state = noise(0)] = user.drain();
  return { match, state };
}

describe('sim hisi-v1', () => {
  test('has its data at 32, which cannot be mapped', () => {
    const { device, user } = opened();
    expect([device.mapped, device.dataSection]).toEqual([undefined, { offset: 32, size: SETUP + SIZE }]);
    expect([user.state(), user.offset(), user.size(), user.pending()]).toEqual([1, 32, 0, 0]);
  });

  test('counts pending_bytes down by each byte read, and below 0 if one is read twice', () => {
    const { user, device } = opened();
    user.setState(2);
    expect([user.pending(), user.pending(), user.size()]).toEqual([SETUP + SIZE, SETUP + SIZE, SETUP + SIZE]);
    device.read(32, new Uint8Array(1000));
    expect(user.pending()).toBe(SETUP + SIZE - 1000);
    device.read(1032, new Uint8Array(SETUP + SIZE - 1000));
    expect([user.pending(), user.size()]).toEqual([0, SETUP + SIZE]);
    const bytes = new Uint8Array(8);
    device.read(32, new Uint8Array(1));
    device.read(8, bytes);
    expect(bytes).toEqual(new Uint8Array(8).fill(0xff));
  });

  test('gives the match data in pre-copy, and all of its state, match data too, in stop-and-copy', () => {
    const { match, state } = saved();
    expect(match).toEqual(state.subarray(0, SETUP));
    expect(state.subarray(SETUP)).toBeBytes(opened().bar);
  });

  test.each([0, 1, 2, 3, 4])('takes %i from any state, and no other value: EFAULT', (state) => {
    for (const from of [0, 1, 2, 3, 4]) {
      const { user } = opened();
      user.setState(from);
      for (const value of [5, 6, 7, 8 + state]) expect(outcome(() => user.setState(value))).toBe('EFAULT');
      user.setState(state);
      expect(user.state()).toBe(state);
    }
  });

  test('loads on a write of 1 in 4', () => {
    const { match, state } = saved();
    const { user, bar } = opened(spec);
    user.setState(4);
    user.load(match);
    user.load(state);
    expect(bar).toBeBytes(new Uint8Array(SIZE));
    user.setState(1);
    expect(bar).toBeBytes(opened().bar);
  });

  test('loses what was loaded with a write of 0 in 4, and says nothing', () => {
    const { match, state } = saved();
    const { user, bar } = opened(spec);
    user.setState(4);
    user.load(match);
    user.load(state);
    user.setState(0);
    user.setState(1);
    expect(bar).toBeBytes(new Uint8Array(SIZE));
  });

  test('refuses the match data of another device with every access from then on, until it is reset', () => {
    const { match } = saved(`${spec},compat=2`);
    const { user, bar } = opened(spec);
    user.setState(4);
    expect(outcome(() => user.load(match))).toBe('EFAULT');
    for (const access of [user.state, user.pending, user.offset, user.size]) expect(outcome(access)).toBe('EFAULT');
    user.setState(1); // runs with whatever lies there
    expect([user.state(), [...bar]]).toEqual([1, [...new Uint8Array(SIZE)]]);
  });

  test('checks no match data that comes in one transaction with the state, and loads garbage', () => {
    const { match, state } = saved(`${spec},compat=2,seed=3`);
    const { user, bar, device } = opened(spec);
    user.setState(4);
    device.write(32, match);
    device.write(32 + SETUP, state.subarray(0, SIZE));
    writeRegister(device, 'data_size', SETUP + SIZE);
    user.setState(1);
    expect(bar).toBeBytes(state.subarray(0, SIZE));
  });

  test('refuses what its registers do not take: EFAULT', () => {
    const { device } = opened();
    expect(outcome(() => device.read(8, new Uint8Array(4)))).toBe('EFAULT');
    expect(outcome(() => writeRegister(device, 'pending_bytes', 1))).toBe('EFAULT');
    expect(outcome(() => device.read(32, new Uint8Array(SETUP + SIZE + 1)))).toBe('EFAULT');
  });

  test('fails where it is told to', () => {
    const { user } = opened(`${spec},fault=read@1:EIO,fault=write@1:EBUSY,fault=RESUMING@2:ENOMEM!,block=1`);
    user.setState(2);
    expect([1, 2, 3, 4].map(() => outcome(user.offset))).toEqual(['EAGAIN', 'EIO', 'EAGAIN', 'OK']);
    user.setState(4);
    expect([1, 2].map(() => outcome(() => user.load(noise(1))))).toEqual(['EAGAIN', 'EBUSY']);
    user.setState(0);
    expect([outcome(() => user.setState(4)), user.state()]).toEqual(['ENOMEM', 6]);
    expect(outcome(() => user.setState(1))).toBe('EFAULT');
  });
});
