import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { poll } from '../../src/vmm/deadline.ts';
import { listen, startMigration, waitForMigration } from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { migrateToFile } from '../../tools/vmm/migration-file.ts';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import { check } from '../guest/check.ts';
import { cutShort, dataSize, withShortRecord, withWrongByte } from '../guest/damage.ts';
import type { MttyType } from '../guest/mtty.ts';
import { assertRuns, imprintDevices, OLD, ROUND, startBoth, startEnd, type End, type LabVm } from '../guest/pair.ts';

/** What the driver refuses, the VMM refuses: with the driver's reason, and without harm to the source. */

interface Path {
  readonly title: string;
  readonly end: End;
  /** How many bytes lie before each of the driver's buffers. */
  readonly frame: number;
  /** What the VMM says of an error of the driver: EFAULT for a bad header, ENOMEM for too many bytes. */
  readonly refusal: RegExp;
}

const old: Path = {
  title: '7.2 under run',
  end: OLD,
  frame: 0,
  refusal: /failed at offset 0x[0-9a-f]+, err: (Bad address|Cannot allocate memory)[^]*load of migration failed/,
};
/**
 * With frames, since a driver's buffers are then handed over one by one. Without, they are collected in the data section, and a
 * small state's first error comes when the VM starts, where QEMU 10 no longer fails.
 */
const framed: Path = {
  title: '10.0 under run --round-trip',
  end: { ...ROUND, shim: ['--present', 'v2', '--round-trip', '--segmentation', 'framed'] },
  frame: 16,
  refusal: /load of migration failed: (Bad address|Cannot allocate memory)/,
};

/** A migration from one type of device to the other, which fails; then the source, which goes on. */
async function refuse(bed: TestBed, { end, refusal }: Path, from: MttyType, to: MttyType): Promise<LabVm> {
  const { source, destination } = await startBoth(bed, { ...end, type: from }, { ...end, type: to }, 0x5d);
  await startMigration(source.vm, await listen(destination.vm, bed.path('migration')), { returnPath: true });
  await waitForMigration(source.vm, 'failed');
  assert.deepEqual(await destination.vm.waitForExit(), { code: 1, signal: null });
  assert.match(destination.vm.child.stderr, refusal);
  await assertRuns(source, 0x5d);
  await imprintDevices(source, 0x77);
  await assertRuns(source, 0x77);
  return source;
}

/** Loads a saved VM that was damaged. */
async function load(bed: TestBed, { end }: Path, saved: Uint8Array): Promise<Vm> {
  writeFileSync(bed.path('state'), saved);
  const { vm } = await startEnd(bed, 'destination', end, { incoming: true });
  await vm.qmp.execute('migrate-incoming', { uri: `exec:cat ${bed.path('state')}` });
  return vm;
}

/** The checks of a path; `tooFew` is about data whose lack nobody notices before the VM starts. */
async function checkPath(path: Path, tooFew: string, assertTooFew: (vm: Vm) => Promise<void>): Promise<void> {
  const { title, frame, refusal } = path;
  await check(`${title}: one port to two ports is refused, and the source goes on`, async (bed) => {
    await refuse(bed, path, 'mtty-1', 'mtty-2');
  });
  let saved = new Uint8Array();
  await check(`${title}: two ports to one port is refused, and the source goes on and is saved`, async (bed) => {
    const { vm } = await refuse(bed, path, 'mtty-2', 'mtty-1');
    await migrateToFile(vm, bed.path('state'));
    saved = readFileSync(bed.path('state'));
    // one buffer or two: it depends on whether QEMU took what pre-copy had
    assert.ok([96 + frame, 96 + 2 * frame].includes(dataSize(saved)), `${dataSize(saved)} bytes of data`);
  });
  await check(`${title}: a wrong byte in the header of the device's data is refused`, async (bed) => {
    const vm = await load(bed, path, withWrongByte(saved, frame + 8));
    assert.deepEqual(await vm.waitForExit(), { code: 1, signal: null });
    assert.match(vm.child.stderr, refusal);
  });
  await check(`${title}: a stream that ends within the device's data is refused`, async (bed) => {
    const vm = await load(bed, path, cutShort(saved));
    assert.deepEqual(await vm.waitForExit(), { code: 1, signal: null });
    assert.match(vm.child.stderr, /load of migration failed: Input\/output error/);
  });
  await check(`${title}: ${tooFew}`, async (bed) => assertTooFew(await load(bed, path, withShortRecord(saved))));
}

await checkPath(old, 'device data that are too few end QEMU 7.2 before the VM runs', async (vm) => {
  assert.deepEqual(await vm.waitForExit(), { code: null, signal: 'SIGSEGV' }); // its own: it has no way to fail here
  assert.match(vm.child.stderr, /err: Invalid argument\n.*Failed to set device state 0x1/);
});

await checkPath(framed, 'device data that are too few are told when the VM starts, as by native 10.0', async (vm) => {
  const told = /Failed setting device state to RUNNING[^]*Invalid argument/;
  await poll(
    () => (told.test(vm.child.stderr) ? true : undefined),
    30_000,
    () => `an error in ${vm.child.stderr}`,
  );
});
