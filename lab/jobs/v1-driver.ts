import assert from 'node:assert/strict';
import { migrateLive } from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { imprint, mismatches } from '../../tools/vmm/imprint.ts';
import { loadFromFile, migrateToFile } from '../../tools/vmm/migration-file.ts';
import type { TestBed, VmOptions } from '../../tools/vmm/test-bed.ts';
import { check } from '../guest/check.ts';
import { harass } from '../guest/harass.ts';
import { V1Mem } from '../guest/v1mem.ts';
import { underShim } from '../guest/vm.ts';

/** New and old VMMs on a driver of the kernel that speaks v1 only: the other direction of the bridge. */

interface Side {
  readonly title: string;
  readonly options: (name: string) => VmOptions;
}

const native10: VmOptions = { qemu: '10.0', vfioProperties: ['x-device-dirty-page-tracking=off'] };
const old: Side = { title: 'native 7.2', options: () => ({ qemu: '7.2' }) };
const young: Side = {
  title: '10.0 under run',
  options: (name) => ({ ...native10, prefix: underShim(name, '--present', 'v2') }),
};

function start(bed: TestBed, name: string, side: Side, options: VmOptions = {}): Promise<Vm> {
  return bed.startVm(name, { ...side.options(name), ...options, vfio: [new V1Mem().sysfs] });
}

await check('QEMU 10.0 without the shim finds no migration in it', async (bed) => {
  await assert.rejects(
    bed.startVm('vm', { ...native10, vfio: [new V1Mem().sysfs] }),
    /VFIO migration is not supported in kernel/,
  );
});

for (const [from, to] of [
  [young, young],
  [old, young],
  [young, old],
  [old, old],
] as const) {
  await check(`live, ${from.title} to ${to.title}`, async (bed) => {
    const source = await start(bed, 'source', from);
    const destination = await start(bed, 'destination', to, { incoming: true });
    await source.waitForFirmware();
    const mark = await imprint(source);
    await migrateLive(source, destination, bed.path('migration'), { returnPath: true });
    await destination.waitForStatus('running');
    assert.deepEqual(await mismatches(destination, mark), []);
    await destination.waitForTicks();
  });
}

await check('10.0 under run, its supervisors killed again and again, at both ends', async (bed) => {
  const source = await start(bed, 'source', young);
  const destination = await start(bed, 'destination', young, { incoming: true });
  await source.waitForFirmware();
  const mark = await imprint(source);
  await harass(bed, source, destination, 4);
  await destination.waitForStatus('running');
  assert.deepEqual(await mismatches(destination, mark), []);
  await destination.waitForTicks();
});

await check('through a file, 10.0 under run to 7.2 and on to 10.0 under run', async (bed) => {
  const source = await start(bed, 'source', young);
  await source.waitForFirmware();
  const mark = await imprint(source);
  await migrateToFile(source, bed.path('one'));
  const middle = await start(bed, 'middle', old, { incoming: true });
  await loadFromFile(middle, bed.path('one'));
  await middle.waitForStatus('running');
  assert.deepEqual(await mismatches(middle, mark), []);
  await migrateToFile(middle, bed.path('two'));
  const last = await start(bed, 'last', young, { incoming: true });
  await loadFromFile(last, bed.path('two'));
  await last.waitForStatus('running');
  assert.deepEqual(await mismatches(last, mark), []);
});
