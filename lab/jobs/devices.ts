import assert from 'node:assert/strict';
import { within } from '../../src/vmm/deadline.ts';
import { migrateLive } from '../../src/vmm/migration.ts';
import { migrationProperties, VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { unplug } from '../../tools/vmm/unplug.ts';
import { check } from '../guest/check.ts';
import { Mtty } from '../guest/mtty.ts';
import { assertArrived, imprintDevices, OLD, startDestination, startSource } from '../guest/pair.ts';
import { RawDevice } from '../guest/raw-device.ts';

/** Several devices in one VM, and such as come and go. */

await check('two devices of different types migrate together', async (bed) => {
  const types = ['mtty-2', 'mtty-1'] as const;
  const [from, to] = [types.map((type) => Mtty.create(type)), types.map((type) => Mtty.create(type))];
  const [source, destination] = await Promise.all([
    startSource(bed, OLD, 0xc3, 'source', from),
    startDestination(bed, OLD, 'destination', to),
  ]);
  await migrateLive(source.vm, destination.vm, bed.path('migration'), { returnPath: true });
  await assertArrived(bed, source, destination, 0xc3);
});

/** PCI configuration mechanism 1. */
const CONFIG_ADDRESS = 0xcf8;
const CONFIG_DATA = 0xcfc;
const COMMAND = 0x04;
const BAR_0 = 0x10;
const IO_SPACE = 1;

/** Does what a guest's OS does with a device that was plugged in: gives it I/O ports. */
async function enableDevice(vm: Vm, slot: number): Promise<void> {
  const write = async (register: number, value: number): Promise<void> => {
    await vm.memory.outl(CONFIG_ADDRESS, (0x8000_0000 | (slot << 11) | register) >>> 0);
    await vm.memory.outl(CONFIG_DATA, value);
  };
  await write(BAR_0, 0xd000);
  await write(BAR_0 + 4, 0xd040);
  await write(COMMAND, IO_SPACE);
}

await check('a device that is unplugged is free, and migrates when it is plugged in again', async (bed) => {
  const [mtty, other] = [Mtty.create(), Mtty.create()];
  const source = await startSource(bed, OLD, 0x0f, 'source', [mtty, other]);
  await unplug(source.vm, 'vfio0', VFIO_SLOT);
  await unplug(source.vm, 'vfio1', VFIO_SLOT + 1);
  new RawDevice(mtty)[Symbol.dispose](); // the group lets one user in
  // the kernel waits, for ever, until nobody has the device open
  const removal = bed.spawn(['sh', '-c', `echo 1 > ${other.sysfs}/remove`]);
  assert.deepEqual(await within(removal.exited, 20_000, 'the device to be removed'), { code: 0, signal: null });
  assert.ok(!Mtty.all().has(other.uuid));

  const properties = Object.fromEntries(migrationProperties('7.2').map((property) => [property.split('=')[0], true]));
  const addr = VFIO_SLOT.toString(16);
  await source.vm.qmp.execute('device_add', {
    driver: 'vfio-pci',
    sysfsdev: mtty.sysfs,
    id: 'vfio0',
    addr,
    ...properties,
  });
  await enableDevice(source.vm, VFIO_SLOT);
  const plugged = { vm: source.vm, mttys: [mtty] };
  await imprintDevices(plugged, 0x74);
  const destination = await startDestination(bed, OLD);
  await migrateLive(source.vm, destination.vm, bed.path('migration'), { returnPath: true });
  await assertArrived(bed, plugged, destination, 0x74);
});
