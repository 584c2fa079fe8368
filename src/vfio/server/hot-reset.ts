import {
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_PCI_HOT_RESET,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED,
  vfio_pci_dependent_device,
  vfio_pci_hot_reset,
  vfio_pci_hot_reset_info,
} from '../../abi/vfio.ts';
import type { Argument } from '../argument.ts';
import { refuse } from './refuse.ts';

export const HOT_RESETS: ReadonlySet<number> = new Set([VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, VFIO_DEVICE_PCI_HOT_RESET]);

/** A device that is alone on its bus, so that it alone is reset with it. */
export interface AloneOnBus {
  readonly segment: number;
  readonly bus: number;
  readonly devfn: number;
  /** Its IOMMU group. */
  readonly group: number;
  /** The id in its iommufd, if it was opened by a node of its own. */
  readonly devid: number | undefined;
  /** The IOMMU group whose file a descriptor of the user's is, if it is one's. Throws `EBADF` if there is no such descriptor. */
  groupOf(fd: number): number | undefined;
  reset(): void;
}

/** Resets of a device's bus, as vfio-pci answers them (drivers/vfio/pci/vfio_pci_core.c of Linux 6.12). */
export function hotResetRequest(argument: Argument, command: number, device: AloneOnBus): number {
  if (command === VFIO_DEVICE_GET_PCI_HOT_RESET_INFO) return getHotResetInfo(argument, device);
  return hotReset(argument, device);
}

/** Devices that are reset with this one. */
const COUNT = 1;

/** vfio_pci_ioctl_get_pci_hot_reset_info. What is reset with the bus has an id of the iommufd, or a group. */
function getHotResetInfo(argument: Argument, { segment, bus, devfn, group, devid }: AloneOnBus): number {
  const info = vfio_pci_hot_reset_info;
  const { argsz } = info.decode(argument.read(info.size));
  if (argsz < info.size) throw refuse('EINVAL', `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: argsz ${argsz}`);
  if (argsz - info.size < COUNT * vfio_pci_dependent_device.size) {
    argument.write(info.encode({ argsz, flags: 0, count: COUNT }));
    throw refuse('ENOSPC', `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: argsz ${argsz}, of ${COUNT} device`);
  }
  argument.write(vfio_pci_dependent_device.encode({ group_id: devid ?? group, segment, bus, devfn }), info.size);
  const flags = devid === undefined ? 0 : VFIO_PCI_HOT_RESET_FLAG_DEV_ID | VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED;
  argument.write(info.encode({ argsz, flags, count: COUNT }));
  return 0;
}

/**
 * vfio_pci_ioctl_pci_hot_reset, vfio_pci_ioctl_pci_hot_reset_groups, vfio_pci_dev_set_hot_reset. A user who has the device by its group
 * shows that all groups are the user's; one who has it by its own node shows none.
 */
function hotReset(argument: Argument, device: AloneOnBus): number {
  const { size } = vfio_pci_hot_reset;
  const { argsz, flags, count } = vfio_pci_hot_reset.decode(argument.read(size));
  const isOfGroup = device.devid === undefined;
  if (argsz < size || flags !== 0 || count > 0 !== isOfGroup || count > COUNT) {
    throw refuse('EINVAL', `VFIO_DEVICE_PCI_HOT_RESET: argsz ${argsz}, flags ${flags}, ${count} groups`);
  }
  if (isOfGroup) {
    const fds = new Int32Array(argument.read(size + 4 * count).slice(size).buffer);
    for (const fd of fds) {
      const group = device.groupOf(fd);
      if (group !== device.group)
        throw refuse('EINVAL', `VFIO_DEVICE_PCI_HOT_RESET: descriptor ${fd} is not its group's`);
    }
  }
  device.reset();
  return 0;
}
