import { describe, expect, test } from 'vitest';
import { presentV1, presentV2, type PresentV1Options } from '../../src/bridge/index.ts';
import { Mlx5Device } from '../../src/sim/mlx5-device.ts';
import { newSimMemory } from '../../src/sim/create.ts';
import { parseSpec } from '../../src/sim/spec.ts';
import { V1Restore } from '../../src/v1/restore.ts';
import { V1Save } from '../../src/v1/save.ts';
import { V1 } from '../../src/v1/states.ts';
import type { V2Device } from '../../src/v2/device.ts';
import { V2Restore } from '../../src/v2/restore.ts';
import { V2Save } from '../../src/v2/save.ts';
import { cut, join } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';
import { v1User } from '../support/v1-user.ts';

const MS = 1000;

/** An mlx5 device whose firmware works by a clock that stands still until it is set. */
function mlx5(options: string) {
  const spec = parseSpec(`mlx5,${options}`);
  if (spec.driver !== 'mlx5') throw new Error('unreachable');
  const memory = newSimMemory(spec);
  const clock = { now: 1 };
  return { device: new Mlx5Device(spec, memory, () => clock.now), bar: memory.bar, clock };
}

const shown = (device: V2Device, options: PresentV1Options = {}) =>
  presentV1(device, { dataSection: new Uint8Array(64 * 1024), ...options });

/** Saves as QEMU 7.2 does, with the guest's work in pre-copy. Returns the buffers. */
function save(source: ReturnType<typeof mlx5>, device = shown(source.device), guest: (n: number) => void = () => {}) {
  const pieces: Uint8Array[] = [];
  const saving = new V1Save(
    device,
    (piece) => pieces.push(Uint8Array.from(piece)),
    () => (source.clock.now += MS),
  );
  saving.setup();
  for (let n = 0; saving.pending() > 0 && n < 500; n += 1) {
    saving.iterate();
    source.clock.now += MS;
    guest(n);
  }
  saving.stop();
  saving.complete();
  return pieces;
}

describe('presentV1 of mlx5', () => {
  test.each([
    'chunk=64K,initial=100K',
    'chunk=64K,initial=100K,delay=3',
    'chunk=64K,initial=300K,delay=3,kernel=7.1',
    'chunk=0,initial=100K',
    'chunk=64K,initial=0',
    'chunk=64K,initial=100K,fwerr=SAVE@1:state',
  ])('an old VMM saves it and restores it, its guest at work: %s', (options) => {
    const source = mlx5(`size=300K,seed=3,${options}`);
    const pieces = save(source, undefined, (n) => {
      if (n < 30) source.bar.fill(n, n * 9000, n * 9000 + 50);
    });
    const destination = mlx5('size=300K');
    const restoring = new V1Restore(shown(destination.device));
    restoring.setup();
    for (const piece of pieces) restoring.load(piece);
    restoring.complete();
    expect(destination.bar).toBeBytes(source.bar);
  });

  test('a new VMM saves it through both halves of the bridge, and restores it', () => {
    const source = mlx5('size=300K,seed=4,chunk=64K,initial=100K,delay=2');
    const there = presentV2(shown(source.device));
    const pieces: Uint8Array[] = [];
    const saving = new V2Save(
      there,
      (piece) => pieces.push(Uint8Array.from(piece)),
      () => (source.clock.now += MS),
    );
    saving.setup();
    for (let n = 0; n < 200; n += 1) {
      saving.pending();
      saving.iterate();
      source.clock.now += MS;
    }
    saving.stop();
    saving.complete();
    const destination = mlx5('size=300K');
    const restoring = new V2Restore(presentV2(shown(destination.device)));
    restoring.setup();
    for (const piece of pieces) restoring.load(piece);
    restoring.complete();
    expect(destination.bar).toBeBytes(source.bar);
  });

  test('nobody waits in pre-copy: until the firmware has saved, pending_bytes is the whole state, and there is no data', () => {
    const { device, clock } = mlx5('size=300K,initial=64K,delay=5');
    const user = v1User(shown(device));
    user.setState(V1.PRE_COPY);
    expect(user.pending()).toBe(device.stopCopyLength());
    expect(user.buffer()).toHaveLength(24);
    expect([user.pending(), user.buffer().length]).toEqual([device.stopCopyLength(), 0]);
    clock.now += 5 * MS;
    expect(user.pending()).toBe(64 * 1024 + 64);
    expect(user.buffer()).toHaveLength(64 * 1024);
  });

  test('in stop-and-copy it waits, and pre-copy cannot be left while an image is saved', () => {
    const { device, clock } = mlx5('delay=5');
    const user = v1User(shown(device));
    user.setState(V1.PRE_COPY);
    expect(outcome(() => user.setState(V1.STOP_COPY))).toBe('EAGAIN');
    clock.now += 5 * MS;
    user.setState(V1.STOP_COPY);
    expect(outcome(() => user.drain())).toBe('EAGAIN');
  });

  test('what is refused stays refused, though the driver lets RESUMING end', () => {
    const source = mlx5('size=300K,chunk=64K');
    const stream = join(save(source));
    stream.fill(0xff, 40, 44); // the first image's magic
    const { device } = mlx5('size=300K');
    const user = v1User(shown(device));
    user.setState(V1.RESUMING);
    const answers = cut(stream, [64 * 1024]).map((piece) => outcome(() => user.load(piece)));
    expect(answers.join(' ')).toMatch(/^(OK )*EINVAL( EINVAL)*$/);
    expect(outcome(() => user.setState(V1.RUNNING))).toBe('EINVAL');
    device.reset();
    expect(user.state()).toBe(V1.RUNNING);
  });

  test('a failed image in pre-copy is told, and the device runs again by a reset', () => {
    const { device } = mlx5('fwerr=SAVE@1');
    const presented = shown(device);
    const user = v1User(presented);
    user.setState(V1.PRE_COPY);
    expect(outcome(() => user.pending())).toBe('ENODEV');
    expect(outcome(() => user.setState(V1.RUNNING))).toBe('EIO');
    presented.reset();
    expect(user.state()).toBe(V1.RUNNING);
    user.setState(V1.STOP);
  });
});

describe('presentV1 with holdPrecopy', () => {
  const hold = 2 ** 20;

  test('shows at least so much as long as there are initial bytes', () => {
    const { device, clock } = mlx5('size=32K,initial=32K,delay=5');
    const user = v1User(shown(device, { holdPrecopy: hold }));
    user.setState(V1.PRE_COPY);
    expect(user.pending()).toBe(hold); // not even the driver knows
    clock.now += 5 * MS;
    expect(user.pending()).toBe(hold);
    user.buffer();
    expect(user.pending()).toBe(0);
  });

  test('shows it anew after REINIT, for which it asks', () => {
    const { device, bar } = mlx5('size=32K,initial=32K,kernel=7.1,reinit=3');
    const user = v1User(shown(device, { holdPrecopy: hold }));
    user.setState(V1.PRE_COPY);
    expect(user.pending()).toBe(hold);
    user.buffer();
    expect(user.pending()).toBe(0);
    bar[0] = 1;
    expect(user.pending()).toBe(hold);
    expect(user.buffer()).toHaveLength(16 + 48 + 4096);
    expect(user.pending()).toBe(0);
  });

  test('without it pending_bytes grows by what is new, and nothing is held', () => {
    const { device, bar } = mlx5('size=32K,initial=32K,kernel=7.1,reinit=3');
    const user = v1User(shown(device));
    user.setState(V1.PRE_COPY);
    expect(user.pending()).toBe(32 * 1024 + 24 + 64);
    user.buffer();
    expect(user.pending()).toBe(0);
    bar[0] = 1;
    expect(user.pending()).toBe(16 + 48 + 4096);
  });
});
