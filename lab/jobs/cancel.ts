import assert from 'node:assert/strict';
import { cancelMigration, CRAWL, migrateLive, startMigration, waitForMigration } from '../../src/vmm/migration.ts';
import { loadFromFile, migrateToFile } from '../../tools/vmm/migration-file.ts';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import { check } from '../guest/check.ts';
import {
  assertArrived,
  assertGoesOn,
  assertRuns,
  imprintDevices,
  OLD,
  ROUND,
  startBoth,
  startDestination,
  type End,
  type LabVm,
} from '../guest/pair.ts';
import { startSink } from '../guest/sink.ts';

/** Migrations that are given up, repeated and gone on from, all in the sandbox that libvirt starts QEMU with. */

const LIBVIRT = 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny';
const sandboxed = (end: End): End => ({ ...end, options: { sandbox: LIBVIRT } });

/** Cancels a migration in pre-copy; the VM goes on. */
async function cancel(bed: TestBed, target: LabVm, seed: number, path: string): Promise<void> {
  using sink = await startSink(bed.path(path));
  await startMigration(target.vm, sink.uri, { parameters: CRAWL });
  await waitForMigration(target.vm, 'active');
  await cancelMigration(target.vm);
  await assertRuns(target, seed);
}

const chains: readonly (readonly [title: string, ends: readonly [End, End, End]])[] = [
  ['7.2 under run', [OLD, OLD, OLD]],
  ['10.0 under run --round-trip to 7.2 under run and back', [ROUND, OLD, ROUND]],
];

for (const [title, [first, second, third]] of chains) {
  await check(`${title}: cancelled twice, migrated, cancelled there and migrated on`, async (bed) => {
    const { source, destination } = await startBoth(bed, sandboxed(first), sandboxed(second), 0x2e);
    await cancel(bed, source, 0x2e, 'sink-1');
    await imprintDevices(source, 0x91);
    await cancel(bed, source, 0x91, 'sink-2');
    await imprintDevices(source, 0xd4);
    await migrateLive(source.vm, destination.vm, bed.path('second'), { returnPath: true });
    await assertGoesOn(destination, 0xd4);
    await source.vm.quit();
    await cancel(bed, destination, 0xd4, 'sink-3');
    await imprintDevices(destination, 0x68);
    // the first VM's device once more
    const last = await startDestination(bed, sandboxed(third), 'third', source.mttys);
    await migrateLive(destination.vm, last.vm, bed.path('third'), { returnPath: true });
    await assertArrived(bed, destination, last, 0x68);
  });
}

const pauses: readonly (readonly [title: string, from: End, to: End])[] = [
  ['7.2 under run to 10.0 under run --round-trip', OLD, ROUND],
  ['10.0 under run --round-trip to 7.2 under run', ROUND, OLD],
];

for (const [title, from, to] of pauses) {
  await check(`${title}: a paused VM is saved, and is paused when it was loaded`, async (bed) => {
    const { source, destination } = await startBoth(bed, from, { ...to, options: { paused: false } }, 0xa6);
    await source.vm.stop();
    await migrateToFile(source.vm, bed.path('state'));
    await loadFromFile(destination.vm, bed.path('state'));
    assert.equal(await destination.vm.status(), 'paused');
    await assertGoesOn(destination, 0xa6);
  });
}
