import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { CLI } from '../../tools/vmm/cli.ts';
import { imprint, mismatches } from '../../tools/vmm/imprint.ts';
import { loadFromFile, migrateToFile } from '../../tools/vmm/migration-file.ts';
import { check } from '../guest/check.ts';
import { harass } from '../guest/harass.ts';
import { BAR_SIZE, V1Mem, type V1Data } from '../guest/v1mem.ts';
import { assertCrosses, native10, old, start, young, type Side } from '../guest/v1mem-pair.ts';

/**
 * New and old VMMs on a driver of the kernel that speaks v1 only: the other direction of the bridge. Each migration is made with a
 * driver whose data is read and written, and with one whose data is mapped or not to be had.
 */

const CROSSINGS: readonly (readonly [data: V1Data, from: Side, to: Side])[] = [
  ['accessed', young, young],
  ['accessed', old, young],
  ['accessed', young, old],
  ['accessed', old, old],
  ['mapped', young, old],
  ['mapped', old, young],
];

await check('QEMU 10.0 without the shim finds no migration in it', async (bed) => {
  await assert.rejects(
    bed.startVm('vm', { ...native10, vfio: [new V1Mem().sysfs] }),
    /VFIO migration is not supported in kernel/,
  );
});

for (const [data, from, to] of CROSSINGS) {
  await check(`live, ${from.title} to ${to.title}, data ${data}`, (bed) => assertCrosses(bed, from, to, data));
}

await check('10.0 under run, its supervisors killed again and again, at both ends', async (bed) => {
  const { vm: source } = await start(bed, 'source', young, 'accessed');
  const { vm: destination } = await start(bed, 'destination', young, 'accessed', { incoming: true });
  await source.waitForFirmware();
  const mark = await imprint(source);
  await harass(bed, source, destination, 4);
  await destination.waitForStatus('running');
  assert.deepEqual(await mismatches(destination, mark), []);
  await destination.waitForTicks();
});

await check('through a file, 10.0 under run to 7.2 and on to 10.0 under run', async (bed) => {
  const { vm: source } = await start(bed, 'source', young, 'accessed');
  await source.waitForFirmware();
  const mark = await imprint(source);
  await migrateToFile(source, bed.path('one'));
  const { vm: middle } = await start(bed, 'middle', old, 'accessed', { incoming: true });
  await loadFromFile(middle, bed.path('one'));
  await middle.waitForStatus('running');
  assert.deepEqual(await mismatches(middle, mark), []);
  await migrateToFile(middle, bed.path('two'));
  const { vm: last } = await start(bed, 'last', young, 'accessed', { incoming: true });
  await loadFromFile(last, bed.path('two'));
  await last.waitForStatus('running');
  assert.deepEqual(await mismatches(last, mark), []);
});

await check('save and restore, from mapped data to read and written data and back', (bed) => {
  const bytes = randomBytes(BAR_SIZE);
  const [mapped, other] = [new V1Mem('mapped'), new V1Mem('accessed')];
  mapped.fillBar(bytes);
  shim('save', mapped, bed.path('one'));
  shim('restore', other, bed.path('one'), '--force'); // they are two types
  assert.ok(other.bar().equals(bytes));
  mapped.fillBar(bytes.toReversed());
  const { faults } = mapped.mapped();
  shim('save', other, bed.path('two'));
  shim('restore', mapped, bed.path('two'), '--force');
  assert.ok(mapped.bar().equals(bytes));
  assert.ok(faults > 0 && mapped.mapped().faults > faults, 'mapped for both');
  assert.deepEqual(other.mapped(), { maps: 0, faults: 0 });
});

function shim(command: 'save' | 'restore', device: V1Mem, ...args: readonly string[]): void {
  const line = [CLI, command, `vfio:${device.group}:${device.uuid}`, ...args];
  const { status, stderr } = spawnSync(process.execPath, line, { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
}
