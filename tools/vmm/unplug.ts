import type { Vm } from '../../src/vmm/vm.ts';

/** ACPI PCI hot-plug registers of the pc machine (docs/specs/acpi_pci_hotplug.rst of QEMU): what a guest's OS writes. */
const ACPI_PCI_EJECT = 0xae08;
const ACPI_PCI_BUS = 0xae10;

/** Unplugs a device as a guest that gives it back, and waits until QEMU has let it go. */
export async function unplug(vm: Vm, id: string, slot: number): Promise<void> {
  await vm.qmp.execute('device_del', { id });
  await vm.memory.outl(ACPI_PCI_BUS, 0);
  await vm.memory.outl(ACPI_PCI_EJECT, 1 << slot);
  await vm.qmp.waitForEvent('DEVICE_DELETED', { where: ({ device }) => device === id });
}
