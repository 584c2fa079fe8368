import {
  VFIO_PCI_BAR0_REGION_INDEX,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_VGA_REGION_INDEX,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
} from '../../abi/vfio.ts';
import type { DeviceRegions, ShownRegion } from '../../vfio/server/device-requests.ts';
import { pciConfig, pciConfigWritable } from '../../sim/pci.ts';
import { REGION_SPAN, type PlannedDevice } from '../run/plan.ts';
import { regionOffset } from '../run/window.ts';
import type { ConfigSpace } from './pci-config.ts';

/** Where config space lies in an emulated device's file. */
export const CONFIG_AT: number = VFIO_PCI_CONFIG_REGION_INDEX * REGION_SPAN;

/** What it holds. */
export function configSpace({ spec }: PlannedDevice): ConfigSpace {
  return { initial: pciConfig(spec), writable: pciConfigWritable(spec) };
}

const READ_WRITE = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;

/** The regions of an emulated device: BAR0 and config space, the others of vfio-pci empty, and the migration region in the window. */
export function emulatedRegions(device: PlannedDevice, place: number): DeviceRegions {
  const own = (index: number): ShownRegion => {
    const offset = BigInt(index) * BigInt(REGION_SPAN);
    switch (index) {
      case VFIO_PCI_BAR0_REGION_INDEX:
        return { flags: READ_WRITE | VFIO_REGION_INFO_FLAG_MMAP, size: device.bar, offset };
      case VFIO_PCI_CONFIG_REGION_INDEX:
        return { flags: READ_WRITE, size: 256, offset };
      default:
        return { flags: 0, size: 0, offset };
    }
  };
  return {
    own: Array.from({ length: VFIO_PCI_VGA_REGION_INDEX }, (_, index) => own(index)),
    migration: regionOffset(place),
  };
}
