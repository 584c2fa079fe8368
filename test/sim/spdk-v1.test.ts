import { describe, expect, test } from 'vitest';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import { noise } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';
import { v1Sim } from '../support/sims.ts';
import { v1User, writeRegister } from '../support/v1-user.ts';

const SETUP = 32;
const SIZE = 10_000;
const LENGTH = 12_288;
const spec = `spdk-v1,size=${SIZE}`;

function opened(text = `${spec},seed=3`) {
  const sim = v1Sim(text);
  const mapped = sim.device.mapped ?? new Uint8Array(0);
  return { ...sim, mapped, user: v1User(sim.device) };
}

/** The state, as QEMU reaches it: through pre-copy. */
function saved(text?: string): Uint8Array {
  const { user, mapped } = opened(text);
  user.setState(3);
  user.setState(2);
  user.pending();
  user.offset();
  return mapped.slice(0, user.size());
}

describe('sim spdk-v1', () => {
  test('takes the changes of device_state that libvfio-user takes, EINVAL otherwise', () => {
    const taken = [0, 1, 2, 3, 4].map((from) =>
      [0, 1, 2, 3, 4, 5, 6, 7].filter((to) => {
        const { user } = opened();
        if (from === 0 || from > 1) user.setState(from);
        if (from === 4)
          return to === 4 || (to === 1 && outcome(() => user.setState(1)) === 'EINVAL' && user.state() === 4);
        if (from === 0 && to === 1) return true; // a matter of what lies in the data section, see below
        return outcome(() => user.setState(to)) === 'OK';
      }),
    );
    expect(taken).toEqual([
      [0, 1],
      [0, 1, 2, 3, 4],
      [0, 1, 2],
      [0, 1, 2],
      [1, 4],
    ]);
  });

  test('has all pending until a buffer of 0 bytes was shown, which is the end', () => {
    const { user, bar, mapped } = opened();
    user.setState(3);
    user.setState(2);
    expect([user.pending(), user.offset(), user.size()]).toEqual([LENGTH, DATA_OFFSET, LENGTH]);
    expect(mapped.subarray(SETUP, SETUP + SIZE)).toBeBytes(bar);
    expect([user.pending(), user.offset(), user.size()]).toEqual([LENGTH, DATA_OFFSET + LENGTH, 0]);
    expect(user.pending()).toBe(0);
    expect([outcome(user.offset), outcome(user.size)]).toEqual(['EINVAL', 'EINVAL']);
  });

  test('gives buffers in pre-copy without end', () => {
    const { user } = opened();
    user.setState(3);
    for (let n = 0; n < 100; n += 1) {
      expect([user.pending(), user.offset(), user.size()]).toEqual([LENGTH, DATA_OFFSET, LENGTH]);
    }
  });

  test('has nothing to give if 2 was written in 1, without an error', () => {
    const { user } = opened();
    user.setState(2);
    expect(user.pending()).toBe(0);
  });

  test('takes registers in turn only', () => {
    const { device, user } = opened();
    expect([outcome(user.offset), outcome(user.size)]).toEqual(['EINVAL', 'EINVAL']);
    user.setState(3);
    expect([outcome(user.offset), outcome(user.size)]).toEqual(['EINVAL', 'EINVAL']);
    user.pending();
    expect([outcome(user.size), outcome(user.offset)]).toEqual(['OK', 'OK']);
    for (const register of ['pending_bytes', 'data_offset', 'data_size'] as const) {
      expect(outcome(() => writeRegister(device, register, 1))).toBe('EINVAL');
    }
  });

  test('loads what the data section holds on a write of 1', () => {
    const { user, bar, mapped, device } = opened(spec);
    user.setState(4);
    mapped.set(saved());
    writeRegister(device, 'data_size', LENGTH);
    expect(user.size()).toBe(0);
    expect(bar).toBeBytes(new Uint8Array(SIZE));
    user.setState(1);
    expect(bar).toBeBytes(opened().bar);
  });

  test('refuses a state that is none of its own, and stays in 4', () => {
    for (const state of [noise(LENGTH), saved(`${spec},compat=2`), saved('spdk-v1,size=9999')]) {
      const { user, mapped } = opened(spec);
      user.setState(4);
      mapped.set(state);
      expect([outcome(() => user.setState(1)), user.state()]).toEqual(['EINVAL', 4]);
    }
  });

  test('a controller that was stopped, and not saved, does not run again', () => {
    const { user } = opened();
    user.setState(0);
    expect([outcome(() => user.setState(1)), user.state()]).toEqual(['EINVAL', 0]);
    const other = opened().user;
    for (const state of [3, 2, 0, 1]) other.setState(state);
    expect(other.state()).toBe(1);
  });

  test('forgets where a trapped access is to begin, and what is pending', () => {
    const { device, user, mapped } = opened();
    user.setState(3);
    user.setState(2);
    user.pending();
    user.offset();
    const into = new Uint8Array(8);
    device.read(DATA_OFFSET + 100, into);
    expect(into).toBeBytes(mapped.subarray(0, 8));
    expect(user.pending()).toBe(0);
    device.write(DATA_OFFSET + 100, noise(8));
    expect(mapped.subarray(0, 8)).toBeBytes(noise(8));
  });

  test('fails where it is told to', () => {
    const { user } = opened(`${spec},fault=read@1:EIO,fault=STOP_COPY@1:EBUSY!,block=1`);
    user.setState(3);
    user.pending();
    expect([1, 2, 3, 4].map(() => outcome(user.offset))).toEqual(['EAGAIN', 'EIO', 'EAGAIN', 'OK']);
    expect([outcome(() => user.setState(2)), user.state()]).toEqual(['EBUSY', 6]);
    expect(outcome(() => user.setState(1))).toBe('EINVAL');
  });
});
