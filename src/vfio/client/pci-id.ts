import { VFIO_PCI_CONFIG_REGION_INDEX } from '../../abi/vfio-device.ts';
import { struct } from '../../abi/struct.ts';
import { ShimError } from '../../error.ts';
import type { VfioPort } from '../port.ts';
import type { RegionInfo } from './device-info.ts';

/** The identification registers of a PCI type 0 header (linux/pci_regs.h: PCI_VENDOR_ID to PCI_SUBSYSTEM_ID). */
const pci_ids = struct('pci_ids', 64, {
  vendor: ['u16', 0x00],
  device: ['u16', 0x02],
  subsystem_vendor: ['u16', 0x2c],
  subsystem: ['u16', 0x2e],
});

export interface PciId {
  /** Vendor and device, in hexadecimal as lspci prints them: `8086:4941`. */
  readonly id: string;
  readonly subsystem: string;
}

/** What the configuration space among these regions says; `undefined` if there is none, or it cannot be read. */
export function pciId(port: VfioPort, regions: readonly RegionInfo[]): PciId | undefined {
  const config = regions.find(({ index }) => index === VFIO_PCI_CONFIG_REGION_INDEX);
  if (config === undefined || config.size < pci_ids.size) return undefined;
  const bytes = new Uint8Array(pci_ids.size);
  try {
    return port.read(config, 0, bytes) === bytes.length ? pciIdOf(bytes) : undefined;
  } catch (error) {
    if (error instanceof ShimError) return undefined;
    throw error;
  }
}

/** The same, of a configuration space in memory. */
export function pciIdOf(config: Uint8Array): PciId {
  const { vendor, device, subsystem_vendor, subsystem } = pci_ids.decode(config);
  const hex = (number: number): string => number.toString(16).padStart(4, '0');
  return { id: `${hex(vendor)}:${hex(device)}`, subsystem: `${hex(subsystem_vendor)}:${hex(subsystem)}` };
}
