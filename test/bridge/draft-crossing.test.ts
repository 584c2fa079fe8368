import { describe, expect, it } from 'vitest';
import { fromDraft } from '../../src/bridge/from-draft.ts';
import { presentV2 } from '../../src/bridge/present-v2.ts';
import type { MigratableDevice } from '../../src/device/migratable.ts';
import { stateName } from '../../src/device/migratable.ts';
import { createSim, DRIVERS, kindOf, parseSpec } from '../../src/sim/index.ts';
import { restoreDevice } from '../../src/state-file/restore.ts';
import { saveDevice } from '../../src/state-file/save.ts';
import { DraftRestore } from '../../src/v1/drafts/restore.ts';
import { sleepUntilReady } from '../../src/wait.ts';
import { cut, join } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';
import { draftSave, GENERATIONS, simInDraft } from '../support/drafts.ts';

const sizeOf = (driver: string): string => (driver === 'mtty' ? '' : ',size=300000');

/** Migrates as `run`'s VMM would: the whole procedure of who speaks what the devices do. */
function migrate(source: MigratableDevice, destination: MigratableDevice): Uint8Array {
  const buffers: Uint8Array[] = [];
  const watch = { wait: sleepUntilReady, expect: () => {} };
  saveDevice(source, (buffer) => buffers.push(buffer.slice()), watch);
  const state = join(buffers);
  const pieces = (most: number): Uint8Array[] =>
    buffers.every(({ length }) => length <= most) ? buffers : cut(state, [most]);
  restoreDevice(destination, pieces, sleepUntilReady);
  expect([stateName(source), stateName(destination)]).toEqual(['RUNNING', 'RUNNING']);
  return state;
}

describe.each(GENERATIONS)('a VMM of %s', (draft) => {
  it.each(DRIVERS)('migrates %s, presented to it', (driver) => {
    const source = simInDraft(draft, `${driver}${sizeOf(driver)},seed=5`);
    const destination = simInDraft(draft, `${driver}${sizeOf(driver)}`);
    expect(destination.bar).not.toBeBytes(source.bar);
    const state = migrate({ protocol: draft, device: source.device }, { protocol: draft, device: destination.device });
    expect(destination.bar).toBeBytes(source.bar);
    expect(state.length).toBeGreaterThan(source.bar.length);
  });

  it.each(DRIVERS.filter((driver) => driver !== 'spdk-v1'))('migrates %s of a paused VM', (driver) => {
    const source = simInDraft(draft, `${driver}${sizeOf(driver)},seed=5`);
    const destination = simInDraft(draft, `${driver}${sizeOf(driver)}`);
    const buffers: Uint8Array[] = [];
    const save = draftSave(source.device, (buffer) => buffers.push(buffer.slice()));
    save.setup(false);
    save.stop();
    save.complete();
    const restore = new DraftRestore(destination.device);
    restore.setup();
    for (const buffer of buffers) restore.load(buffer);
    restore.complete();
    expect(destination.bar).toBeBytes(source.bar);
  });

  it('gets nothing of spdk-v1 of a paused VM, and the destination refuses that', () => {
    const source = simInDraft(draft, 'spdk-v1,size=300000,seed=5');
    const destination = simInDraft(draft, 'spdk-v1,size=300000');
    const before = destination.bar.slice();
    const buffers: Uint8Array[] = [];
    const save = draftSave(source.device, (buffer) => buffers.push(buffer.slice()));
    save.setup(false);
    save.stop();
    save.complete();
    expect(buffers).toEqual([]);
    const restore = new DraftRestore(destination.device);
    restore.setup();
    expect(outcome(() => restore.complete())).toBe('EINVAL');
    expect(destination.bar).toBeBytes(before);
  });

  it.each(DRIVERS)('migrates %s that says "not yet" and moves little at a time', (driver) => {
    const slow = kindOf({ driver }).protocol === 'v2' ? ',block=2,short=1000' : ',block=2';
    const source = simInDraft(draft, `${driver}${driver === 'mtty' ? '' : ',size=10000'},seed=5${slow}`);
    const destination = simInDraft(draft, `${driver}${driver === 'mtty' ? '' : ',size=10000'}${slow}`);
    migrate({ protocol: draft, device: source.device }, { protocol: draft, device: destination.device });
    expect(destination.bar).toBeBytes(source.bar);
  });
});

describe.each(GENERATIONS)('a driver of %s', (driver) => {
  const sims = (): { source: ReturnType<typeof createSim>; destination: ReturnType<typeof createSim> } => ({
    source: createSim(parseSpec(`${driver},size=300000,section=64K,seed=5,dirty=3`)),
    destination: createSim(parseSpec(`${driver},size=300000,section=64K`)),
  });
  const asDraft = (sim: MigratableDevice) => {
    if (sim.protocol !== 'draft-2018' && sim.protocol !== 'draft-2019') throw new Error('no draft');
    return sim.device;
  };

  it('is migrated by a VMM of v1', () => {
    const { source, destination } = sims();
    const [from, to] = [source, destination].map((sim) => fromDraft(asDraft(sim)));
    if (from === undefined || to === undefined) throw new Error('two devices');
    migrate({ protocol: 'v1', device: from }, { protocol: 'v1', device: to });
    expect(destination.bar).toBeBytes(source.bar);
  });

  it('is migrated by a VMM of v2', () => {
    const { source, destination } = sims();
    const options = { stopAfterLoad: driver === 'draft-2018', offerP2P: true };
    const [from, to] = [source, destination].map((sim) => presentV2(fromDraft(asDraft(sim)), options));
    if (from === undefined || to === undefined) throw new Error('two devices');
    migrate({ protocol: 'v2', device: from }, { protocol: 'v2', device: to });
    expect(destination.bar).toBeBytes(source.bar);
  });

  it('is migrated by a VMM of its own, from and to a v1 VMM', () => {
    const { source, destination } = sims();
    migrate({ protocol: driver, device: asDraft(source) }, { protocol: 'v1', device: fromDraft(asDraft(destination)) });
    expect(destination.bar).toBeBytes(source.bar);
  });
});
