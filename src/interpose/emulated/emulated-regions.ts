import {
  VFIO_PCI_BAR0_REGION_INDEX,
  VFIO_PCI_BAR2_REGION_INDEX,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_VGA_REGION_INDEX,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
} from '../../abi/vfio.ts';
import type { DeviceRegions, ShownRegion } from '../../vfio/server/device-requests.ts';
import { configSpace } from '../../sim/pci.ts';
import { MSIX_BAR_SIZE } from '../../sim/pci-capabilities.ts';
import { mapSharedMemory } from '../../sys/memory.ts';
import type { PlannedDevice } from '../run/plan.ts';
import { CONFIG_OFFSET, ownRegionOffset, regionOffset } from '../run/window.ts';
import type { DeviceFiles } from '../memory/inherited.ts';
import { KEPT_SIZE, PciConfig } from './pci-config.ts';

/** Where what is kept beside config space lies in its file. */
const KEPT_AT = 4096;

/** The config space, in a file of its own, and what is read of it, which is in the device's. */
export function mapConfig({ spec }: PlannedDevice, files: Pick<DeviceFiles, 'config' | 'device'>): PciConfig {
  const { bytes } = mapSharedMemory(files.config, KEPT_AT + KEPT_SIZE);
  const shown = mapSharedMemory(files.device, spec.config, CONFIG_OFFSET).bytes;
  return new PciConfig(bytes, configSpace(spec), bytes.subarray(KEPT_AT), shown);
}

const READ_WRITE = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;

/**
 * The regions of an emulated device: BAR0, MSI-X's BAR and config space, the others of vfio-pci empty, and the migration region in the window. The BAR
 * of MSI-X cannot be mapped, as one that is smaller than a page of its host and shares it.
 */
export function emulatedRegions(device: PlannedDevice, place: number): DeviceRegions {
  const own = (index: number): ShownRegion => {
    const offset = ownRegionOffset(index);
    switch (index) {
      case VFIO_PCI_BAR0_REGION_INDEX:
        return { flags: READ_WRITE | VFIO_REGION_INFO_FLAG_MMAP, size: device.bar, offset };
      case VFIO_PCI_BAR2_REGION_INDEX:
        return { flags: READ_WRITE, size: MSIX_BAR_SIZE, offset };
      case VFIO_PCI_CONFIG_REGION_INDEX:
        return { flags: READ_WRITE, size: device.spec.config, offset };
      default:
        return { flags: 0, size: 0, offset };
    }
  };
  return {
    own: Array.from({ length: VFIO_PCI_VGA_REGION_INDEX }, (_, index) => own(index)),
    migration: regionOffset(place),
  };
}
