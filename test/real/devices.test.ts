import { describe, expect, it } from 'vitest';
import { migrateLive } from '../../src/vmm/migration.ts';
import { VFIO_SLOT } from '../../src/vmm/qemu-command.ts';
import type { Vm } from '../../src/vmm/vm.ts';
import { imprint } from '../../tools/vmm/imprint.ts';
import { expectDevice, expectDevices, startPair } from '../../tools/vmm/pair.ts';
import { startShimmedVm, type DeviceOptions } from '../../tools/vmm/shim.ts';
import { unplug } from '../../tools/vmm/unplug.ts';
import { useTestBed } from './bed.ts';
import { describeWithQemus } from './requirements.ts';
import { patient } from '../support/patience.ts';

const TIMEOUT = patient(90_000);
const SIZE = 4 * 1024 * 1024;

/** PCI's configuration mechanism #1, and registers of a device's configuration space (linux/pci_regs.h). */
const PCI_CONFIG_ADDRESS = 0xcf8;
const PCI_CONFIG_DATA = 0xcfc;
const PCI_CONFIG_ENABLE = 0x8000_0000;
const PCI_COMMAND = 0x04;
const PCI_COMMAND_MEMORY = 0x2;
const PCI_BASE_ADDRESS_0 = 0x10;

/** QEMU 5.2 starts and stops the log of dirty pages for each device (hw/vfio/migration.c), later ones for the container. */
describe.each(['5.2', '7.2'] as const)('under QEMU %s', (qemu) => {
  describeWithQemus([qemu], 'devices of one VM', () => {
    const bed = useTestBed();
    const two: readonly DeviceOptions[] = [
      { driver: 'qat', size: '4M' },
      { driver: 'hisi', size: '1M' },
    ];

    it('migrates two of different kinds together', { timeout: TIMEOUT }, async () => {
      const pair = await startPair(bed(), two, { qemu, machine: 'pc' });
      const { source, destination } = pair;
      const marks = [await imprint(source, VFIO_SLOT), await imprint(source, VFIO_SLOT + 1)];
      await migrateLive(source, destination, bed().path('migration'), { returnPath: true });
      const { from, to } = await expectDevices(pair, marks);
      expect(new Set(to.map(({ sha256 }) => sha256)).size).toBe(2);
      expect(to.map(({ bytesIn }) => bytesIn)).toEqual(from.map(({ bytesOut }) => bytesOut));
      expect(from.every(({ states }) => states.includes('STOP_COPY'))).toBe(true);
    });
  });
});

/** The properties that make a device migrate, as device_add takes them: each QEMU has its own types. */
const PROPERTIES = {
  '7.2': { 'x-enable-migration': true },
  '10.0': { 'enable-migration': 'on', 'migration-events': true },
} as const;

describe.each<[keyof typeof PROPERTIES, string]>([
  ['7.2', 'qat'],
  ['10.0', 'vendor-v1'],
  ['10.0', 'qat'],
])('QEMU %s, %s', (qemu, driver) => {
  describeWithQemus([qemu], 'a device that was unplugged and plugged in again', () => {
    const bed = useTestBed();

    it('is migrated', { timeout: TIMEOUT }, async () => {
      const device: DeviceOptions = { driver, size: String(SIZE) };
      const source = await startShimmedVm(bed(), 'source', [device], { qemu });
      await source.waitForFirmware();
      const { address } = await source.bar(VFIO_SLOT, 0);
      await imprint(source);
      await unplug(source, 'vfio0', VFIO_SLOT);
      await expect(source.bar(VFIO_SLOT, 0)).rejects.toThrow('no PCI device in slot 4');
      await source.qmp.execute('device_add', {
        driver: 'vfio-pci',
        sysfsdev: `${bed().path('source.sysfs')}/0000:90:00.0`,
        id: 'vfio0',
        addr: VFIO_SLOT.toString(16),
        ...PROPERTIES[qemu],
      });
      await placeBar(source, VFIO_SLOT, address);
      const mark = await imprint(source);
      const destination = await startShimmedVm(bed(), 'destination', [device], { qemu, incoming: true });
      await migrateLive(source, destination, bed().path('migration'), { returnPath: true });
      const { from, to } = await expectDevice({ source, destination }, mark);
      expect(to.bytesIn).toBe(from.bytesOut);
      expect(to.bytesIn).toBeGreaterThan(SIZE);
    });
  });
});

/**
 * QEMU 5.2 takes the VM for stopped when a device comes into it, so that the first stop writes nothing to device_state
 * (vfio_vmstate_change, hw/vfio/migration.c): it goes from 3 to 2 only as it is saved. A VM that a device was unplugged from is
 * not tried: QEMU keeps that one's handlers, and crashes as it migrates.
 */
describeWithQemus(['5.2'], 'a device that is plugged into a running VM of QEMU 5.2', () => {
  const bed = useTestBed();
  const FREE = 0xe000_0000;

  it.each(['qat', 'vendor-v1'])('is migrated: %s', { timeout: TIMEOUT }, async (driver) => {
    const device: DeviceOptions = { driver, size: String(SIZE) };
    const options = { qemu: '5.2', machine: 'pc' } as const;
    const source = await startShimmedVm(bed(), 'source', [device], { ...options, vfio: [] });
    await source.waitForFirmware();
    await source.qmp.execute('device_add', {
      driver: 'vfio-pci',
      sysfsdev: `${bed().path('source.sysfs')}/0000:90:00.0`,
      id: 'vfio0',
      addr: VFIO_SLOT.toString(16),
      'x-enable-migration': true,
    });
    await placeBar(source, VFIO_SLOT, FREE);
    const mark = await imprint(source);
    const destination = await startShimmedVm(bed(), 'destination', [device], { ...options, incoming: true });
    await migrateLive(source, destination, bed().path('migration'), { returnPath: true });
    const { from, to } = await expectDevice({ source, destination }, mark);
    expect(to.bytesIn).toBe(from.bytesOut);
    expect(from.states).toEqual(['RUNNING', 'PRE_COPY', 'STOP_COPY', 'STOP']);
  });
});

/** Places BAR 0 and enables it as a guest's OS does after a hot-plug. */
async function placeBar(vm: Vm, slot: number, address: number): Promise<void> {
  const at = (register: number): number => PCI_CONFIG_ENABLE + (slot << 11) + register;
  await vm.memory.outl(PCI_CONFIG_ADDRESS, at(PCI_BASE_ADDRESS_0));
  await vm.memory.outl(PCI_CONFIG_DATA, address);
  await vm.memory.outl(PCI_CONFIG_ADDRESS, at(PCI_COMMAND));
  await vm.memory.outl(PCI_CONFIG_DATA, PCI_COMMAND_MEMORY);
}
