import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { migrateLive } from '../../src/vmm/migration.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { CLI } from '../../tools/vmm/cli.ts';
import { imprint, mismatches } from '../../tools/vmm/imprint.ts';
import { loadFromFile, migrateToFile } from '../../tools/vmm/migration-file.ts';
import type { TestBed, VmOptions } from '../../tools/vmm/test-bed.ts';
import { check } from '../guest/check.ts';
import { harass } from '../guest/harass.ts';
import { BAR_SIZE, V1Mem, type V1Data } from '../guest/v1mem.ts';
import { underShim } from '../guest/vm.ts';

/**
 * New and old VMMs on a driver of the kernel that speaks v1 only: the other direction of the bridge. Each migration is made with a
 * driver whose data is read and written, and with one whose data is mapped or not to be had.
 */

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

const CROSSINGS: readonly (readonly [data: V1Data, from: Side, to: Side])[] = [
  ['accessed', young, young],
  ['accessed', old, young],
  ['accessed', young, old],
  ['accessed', old, old],
  ['mapped', young, old],
  ['mapped', old, young],
];

interface Started {
  readonly vm: Vm;
  readonly device: V1Mem;
}

async function start(bed: TestBed, name: string, side: Side, data: V1Data, options: VmOptions = {}): Promise<Started> {
  const device = new V1Mem(data);
  const vm = await bed.startVm(name, { ...side.options(name), ...options, vfio: [device.sysfs] });
  return { vm, device };
}

/** The data of a migration is a record or two, each the BAR and 16 bytes, in buffers of a page at most. */
const BUFFERS = BAR_SIZE / 4096 + 1;

/**
 * Whether the device's data went through mapped memory. QEMU 7.2 maps the section once, by itself; the supervisor maps it for each
 * access, as it does not keep the VMM's device open.
 */
function assertMoved({ device }: Started, side: Side): void {
  const { maps, faults } = device.mapped();
  if (device.data === 'accessed') assert.deepEqual({ maps, faults }, { maps: 0, faults: 0 });
  else if (side === old) assert.deepEqual({ maps, touched: faults > 0 }, { maps: 1, touched: true });
  else assert.ok(maps >= BUFFERS && faults >= BUFFERS, `${maps} maps and ${faults} faults for ${BUFFERS} buffers`);
}

await check('QEMU 10.0 without the shim finds no migration in it', async (bed) => {
  await assert.rejects(
    bed.startVm('vm', { ...native10, vfio: [new V1Mem().sysfs] }),
    /VFIO migration is not supported in kernel/,
  );
});

for (const [data, from, to] of CROSSINGS) {
  await check(`live, ${from.title} to ${to.title}, data ${data}`, async (bed) => {
    const source = await start(bed, 'source', from, data);
    const destination = await start(bed, 'destination', to, data, { incoming: true });
    await source.vm.waitForFirmware();
    const mark = await imprint(source.vm);
    await migrateLive(source.vm, destination.vm, bed.path('migration'), { returnPath: true });
    await destination.vm.waitForStatus('running');
    assert.deepEqual(await mismatches(destination.vm, mark), []);
    await destination.vm.waitForTicks();
    assertMoved(source, from);
    assertMoved(destination, to);
  });
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
