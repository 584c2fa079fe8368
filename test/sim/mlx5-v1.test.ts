import { describe, expect, test } from 'vitest';
import { cut, join, noise } from '../support/bytes.ts';
import { outcome, thrownBy } from '../support/errno.ts';
import { v1Sim, type V1Sim } from '../support/sims.ts';
import { v1User, writeRegister } from '../support/v1-user.ts';

const SETUP = 32;
const WINDOW = 128 * 1024;
const SIZE = 300_000;
const spec = `mlx5-v1,size=${SIZE}`;

function opened(text = `${spec},seed=3`, former?: V1Sim['memory']) {
  const sim = v1Sim(text, former);
  return { ...sim, user: v1User(sim.device) };
}

/** A buffer as QEMU reads it: 8 bytes at a time. */
function buffer({ device, user }: Pick<ReturnType<typeof opened>, 'device' | 'user'>): Uint8Array {
  const bytes = new Uint8Array(user.size());
  for (let at = 0; at < bytes.length; at += 8) device.read(user.offset() + at, bytes.subarray(at, at + 8));
  return bytes;
}

function saved(text = `${spec},seed=3`): Uint8Array[] {
  const sim = opened(text);
  sim.user.setState(2);
  const buffers: Uint8Array[] = [];
  while (sim.user.pending() > 0) {
    const next = buffer(sim);
    if (next.length === 0) break;
    buffers.push(next);
  }
  return buffers;
}

describe('sim mlx5-v1', () => {
  test('has a window of 128 KiB at 32, which cannot be mapped', () => {
    const { device, user } = opened();
    expect([device.mapped, device.dataSection]).toEqual([undefined, { offset: 32, size: WINDOW }]);
    expect([user.state(), user.offset()]).toEqual([1, 32]);
  });

  test('reads 0 bytes of pending_bytes without an image, and 0 in pre-copy', () => {
    const { user } = opened();
    for (const state of [1, 0, 4]) {
      user.setState(state);
      expect(thrownBy(user.pending)).toMatchObject({ code: 'ERR_DEVICE', errno: 'EIO' });
    }
    user.setState(1);
    user.setState(3);
    expect([user.pending(), user.pending()]).toEqual([0, 0]);
  });

  test('moves the window behind the value of pending_bytes: the end is a buffer of 0 bytes, with bytes pending', () => {
    const sim = opened();
    const { user } = sim;
    user.setState(2);
    const seen: number[][] = [];
    for (let n = 0; n < 4; n += 1) seen.push([user.pending(), buffer(sim).length]);
    const all = SETUP + SIZE;
    expect(seen).toEqual([
      [all, WINDOW],
      [all, WINDOW],
      [all - WINDOW, all - 2 * WINDOW],
      [all - 2 * WINDOW, 0],
    ]);
    expect(user.pending()).toBe(0);
    expect(join(saved()).subarray(SETUP)).toBeBytes(sim.bar);
  });

  test('shows data_size in 2 only, and takes it in 4 only: EINVAL', () => {
    const { device, user } = opened();
    for (const state of [1, 3, 1, 0, 4]) {
      user.setState(state);
      expect(outcome(user.size)).toBe('EINVAL');
      if (state !== 4) expect(outcome(() => writeRegister(device, 'data_size', 8))).toBe('EINVAL');
    }
  });

  test('puts what a read takes from each page at the beginning of the buffer', () => {
    const { device, user, bar } = opened();
    user.setState(2);
    const image = new Uint8Array(SETUP + SIZE);
    image.set(bar, SETUP);
    const into = new Uint8Array(200);
    device.read(32 + 4096 - 100, into);
    expect(into.subarray(0, 100)).toBeBytes(image.subarray(4096, 4196));
    expect(into.subarray(100)).toEqual(new Uint8Array(100));
    device.read(32 + 4096, into);
    expect(into).toBeBytes(image.subarray(4096, 4296));
  });

  test('takes no data beyond the window or the image: EINVAL', () => {
    const { device, user } = opened('mlx5-v1,size=100');
    user.setState(2);
    expect(outcome(() => device.read(32, new Uint8Array(SETUP + 100)))).toBe('OK');
    expect(outcome(() => device.read(32, new Uint8Array(SETUP + 101)))).toBe('EINVAL');
    expect(outcome(() => device.read(32 + WINDOW, new Uint8Array(1)))).toBe('EINVAL');
  });

  test.each([[8], [100], [4096, 5000], [WINDOW]])('loads transactions of %j bytes, on 4 to 0 or 1', (...sizes) => {
    for (const state of [0, 1]) {
      const { user, bar } = opened(spec);
      user.setState(4);
      for (const piece of cut(join(saved()), sizes)) user.load(piece);
      user.setState(state);
      expect(bar).toBeBytes(opened().bar);
    }
  });

  test.each([
    ['of another device', join(saved(`${spec},compat=2`))],
    ['that is incomplete', join(saved()).subarray(0, -1)],
  ])('an image %s puts it into ERROR, which only a reset leaves', (_what, image) => {
    for (const state of [0, 1]) {
      const { user, bar } = opened(spec);
      user.setState(4);
      for (const piece of cut(image, [WINDOW])) user.load(piece);
      expect([outcome(() => user.setState(state)), user.state()]).toEqual(['EINVAL', 6]);
      expect(outcome(() => user.setState(1))).toBe('EINVAL');
      expect(bar).toBeBytes(new Uint8Array(SIZE));
    }
  });

  test('runs without complaint if nothing was loaded', () => {
    const { user } = opened();
    user.setState(4);
    expect([outcome(() => user.setState(1)), user.state()]).toEqual(['OK', 1]);
  });

  test('refuses an image that is larger than any: ENOMEM', () => {
    const { user } = opened('mlx5-v1,size=4K');
    user.setState(4);
    user.load(noise(4096 + SETUP));
    expect(outcome(() => user.load(noise(1)))).toBe('ENOMEM');
  });

  test('keeps its image: a second save has nothing, unless the device was reset', () => {
    const sim = opened();
    const { user } = sim;
    const save = (): number => {
      user.setState(2);
      let bytes = 0;
      while (user.pending() > 0) {
        const { length } = buffer(sim);
        if (length === 0) break;
        bytes += length;
      }
      user.setState(1);
      return bytes;
    };
    expect([save(), save()]).toEqual([SETUP + SIZE, 0]);
    sim.device.reset();
    expect(save()).toBe(SETUP + SIZE);
  });

  test('saves in 0 what was stopped before, and takes no state but the five', () => {
    const { user } = opened();
    for (const value of [5, 6, 7, 8, 11]) expect(outcome(() => user.setState(value))).toBe('EINVAL');
    user.setState(0);
    user.setState(2);
    expect(user.pending()).toBe(SETUP + SIZE);
  });

  test('goes on where another object stopped', () => {
    const first = opened();
    first.user.setState(2);
    first.user.pending();
    const begin = buffer(first);
    const second = opened(`${spec},seed=3`, first.memory);
    expect(second.user.pending()).toBe(SETUP + SIZE);
    expect(join([begin, buffer(second)]).subarray(SETUP)).toBeBytes(first.bar.subarray(0, 2 * WINDOW - SETUP));
  });

  test('fails where it is told to', () => {
    const { user } = opened(`${spec},fault=read@1:EIO,fault=STOP@1:EBUSY!,block=1`);
    user.setState(2);
    expect([1, 2, 3, 4].map(() => outcome(user.offset))).toEqual(['EAGAIN', 'EIO', 'EAGAIN', 'OK']);
    expect([outcome(() => user.setState(0)), user.state()]).toEqual(['EBUSY', 6]);
  });
});
