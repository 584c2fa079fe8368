import { expect, it } from 'vitest';
import { useTestBed } from './bed.ts';
import { imprint, mismatches } from './imprint.ts';
import { migrateLive } from './migration.ts';
import { VFIO_MIGRATION, VFIO_SLOT, type Vm } from './qemu.ts';
import { describeWithQemu } from './requirements.ts';
import { poll } from './wait.ts';
import { quitAndReport, quitAndReports, startShimmedVm, type DeviceOptions } from './shim.ts';

const TIMEOUT = 90_000;

/** ACPI PCI hot-plug registers of the pc machine (docs/specs/acpi_pci_hotplug.rst of QEMU): what a guest's OS writes. */
const ACPI_PCI_EJECT = 0xae08;
const ACPI_PCI_BUS = 0xae10;

describeWithQemu('devices of one VM under QEMU 7.2', () => {
  const bed = useTestBed();
  const two: readonly DeviceOptions[] = [
    { driver: 'qat', size: '4M' },
    { driver: 'hisi', size: '1M' },
  ];

  it('migrates two of different kinds together', { timeout: TIMEOUT }, async () => {
    const source = await startShimmedVm(bed(), 'source', two);
    const destination = await startShimmedVm(bed(), 'destination', two, { incoming: true });
    await source.waitForFirmware();
    const marks = [await imprint(source, VFIO_SLOT), await imprint(source, VFIO_SLOT + 1)];
    await migrateLive(source, destination, bed().path('migration'), { returnPath: true });
    await destination.waitForStatus('running');
    for (const [index, mark] of marks.entries()) {
      expect(await mismatches(destination, mark, VFIO_SLOT + index)).toEqual([]);
    }
    const to = await quitAndReports(destination);
    const from = await quitAndReports(source);
    expect(to.map(({ sha256 }) => sha256)).toEqual(from.map(({ sha256 }) => sha256));
    expect(new Set(to.map(({ sha256 }) => sha256)).size).toBe(2);
    expect(to.map(({ bytesIn }) => bytesIn)).toEqual(from.map(({ bytesOut }) => bytesOut));
    expect(from.every(({ states }) => states.includes('STOP_COPY'))).toBe(true);
  });

  /** Unplugs a device as a guest that gives it back, and waits until QEMU has let it go. */
  async function unplug(vm: Vm, id: string, slot: number): Promise<void> {
    await vm.qmp.execute('device_del', { id });
    await vm.memory.outl(ACPI_PCI_BUS, 0);
    await vm.memory.outl(ACPI_PCI_EJECT, 1 << slot);
    await poll(
      async () => (vm.qmp.events.some(({ event }) => event === 'DEVICE_DELETED') ? true : undefined),
      10_000,
      `${id} to be unplugged`,
    );
  }

  it('migrates one that was unplugged and plugged in again', { timeout: TIMEOUT }, async () => {
    const device: DeviceOptions = { driver: 'qat', size: '4M' };
    const source = await startShimmedVm(bed(), 'source', [device]);
    await source.waitForFirmware();
    await imprint(source);
    await unplug(source, 'vfio0', VFIO_SLOT);
    const properties = Object.fromEntries(VFIO_MIGRATION['7.2'].map((property) => [property.split('=')[0], true]));
    await source.qmp.execute('device_add', {
      driver: 'vfio-pci',
      sysfsdev: `${bed().path('source.sysfs')}/0000:90:00.0`,
      id: 'vfio0',
      addr: VFIO_SLOT.toString(16),
      ...properties,
    });
    const destination = await startShimmedVm(bed(), 'destination', [device], { incoming: true });
    await migrateLive(source, destination, bed().path('migration'), { returnPath: true });
    await destination.waitForStatus('running');
    const to = await quitAndReport(destination);
    const from = await quitAndReport(source);
    expect(to.sha256).toBe(from.sha256);
    expect(to.bytesIn).toBe(from.bytesOut);
    expect(to.bytesIn).toBeGreaterThan(4 * 1024 * 1024);
  });
});
