import { describe, expect, test } from 'vitest';
import { presentV1, presentV2 } from '../../src/bridge/index.ts';
import type { V1Device } from '../../src/v1/device.ts';
import { V1Restore } from '../../src/v1/restore.ts';
import { V1Save } from '../../src/v1/save.ts';
import type { V2Device } from '../../src/v2/device.ts';
import { V2Restore } from '../../src/v2/restore.ts';
import { V2Save } from '../../src/v2/save.ts';
import { cut, join, noise } from '../support/bytes.ts';
import { v1Sim, v2Sim } from '../support/sims.ts';

const atOnce = (): void => {
  // asks again without waiting
};

/** A save as QEMU 7.2 does it, the guest writing in between. */
function saveV1(device: V1Device, guest: () => void): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  const save = new V1Save(device, (piece) => pieces.push(piece.slice()), atOnce);
  save.setup();
  for (let n = 0; n < 4; n += 1) save.iterate();
  guest();
  for (let n = 0; n < 4; n += 1) save.iterate();
  save.stop();
  save.complete();
  return pieces;
}

/** A save as QEMU 10 does it. */
function saveV2(device: V2Device, guest: () => void): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  const save = new V2Save(device, (piece) => pieces.push(piece.slice()), atOnce);
  save.setup();
  for (let n = 0; n < 4; n += 1) save.iterate();
  guest();
  for (let n = 0; n < 4; n += 1) save.iterate();
  save.stop();
  save.complete();
  return pieces;
}

function restoreV1(device: V1Device, pieces: readonly Uint8Array[]): void {
  const restore = new V1Restore(device, atOnce);
  restore.setup();
  for (const piece of pieces) restore.load(piece);
  restore.complete();
}

function restoreV2(device: V2Device, pieces: readonly Uint8Array[]): void {
  const restore = new V2Restore(device, atOnce);
  restore.setup();
  for (const piece of pieces) restore.load(piece);
  restore.complete();
}

const old = (device: V2Device): V1Device => presentV1(device, { dataSection: new Uint8Array(8192) });

/* The bridge wraps the data in nothing of its own: a state saved by one kind of VMM is loaded by the other. */
describe('evacuation between VMMs on v2 drivers', () => {
  const specs = ['qat,size=50000', 'mtty', 'mtty,ports=2', 'pds,size=50000', 'hisi,size=50000'];
  const habits = ['', ',short=777', ',block=2', ',short=1000,block=1'];
  const cases = specs.flatMap((spec) => habits.map((habit) => ({ spec, habit })));

  test.each(cases)('$spec$habit: old to new, new to old, old to old', ({ spec, habit }) => {
    const direct = saveV2(v2Sim(`${spec},seed=6`).device, () => undefined);
    for (const [oldSource, oldTarget] of [
      [true, false],
      [false, true],
      [true, true],
    ]) {
      const [source, target] = [v2Sim(`${spec},seed=6${habit}`), v2Sim(`${spec}${habit}`)];
      const unchanged = (): void => undefined;
      const pieces = oldSource === true ? saveV1(old(source.device), unchanged) : saveV2(source.device, unchanged);
      expect(pieces).toBeBytes(direct);
      if (oldTarget === true) restoreV1(old(target.device), cut(join(pieces), [10_000, 5]));
      else restoreV2(target.device, cut(join(pieces), [10_000, 5]));
      expect(target.bar).toBeBytes(source.bar);
    }
  });
});

describe('evacuation between VMMs on a v1 driver', () => {
  const spec = 'vendor-v1,size=300K,section=32K';
  const habits = ['', ',dirty=2', ',block=2', ',dirty=1,block=1'];
  const ways = [
    { saves: 'v1', restores: 'v2' },
    { saves: 'v2', restores: 'v1' },
    { saves: 'v2', restores: 'v2' },
  ];
  test.each(ways.flatMap((way) => habits.map((habit) => ({ habit, ...way }))))(
    'vendor-v1$habit: saved by a $saves VMM, restored by a $restores VMM',
    ({ habit, saves, restores }) => {
      const [source, target] = [v1Sim(`${spec},seed=6${habit}`), v1Sim(spec)];
      const guest = (): void => source.bar.set(noise(9000, 4), 100_000);
      const pieces = saves === 'v1' ? saveV1(source.device, guest) : saveV2(presentV2(source.device), guest);
      if (restores === 'v1') restoreV1(target.device, cut(join(pieces), [32_768, 100]));
      else restoreV2(presentV2(target.device), cut(join(pieces), [50_000, 100]));
      expect(target.bar).toBeBytes(source.bar);
    },
  );
});
