import { AT_FDCWD, O_CLOEXEC, O_RDWR } from '../../abi/fcntl.ts';
import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_GET_API_VERSION,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_SET_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_group_status,
} from '../../abi/vfio.ts';
import { ShimError } from '../../error.ts';
import { addressOf, cString, syscall } from '../../sys/libc.ts';

/** A device's descriptor, by the way that every VFIO user goes: container, group, IOMMU, device. */
export function openDevice(groupPath: string, name: string): number {
  const container = open('/dev/vfio/vfio');
  const version = ioctl('VFIO_GET_API_VERSION', container, VFIO_GET_API_VERSION, 0);
  if (version !== VFIO_API_VERSION) throw refused(`VFIO_GET_API_VERSION: ${version}`);
  if (ioctl('VFIO_CHECK_EXTENSION', container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) !== 1) {
    throw refused('VFIO_CHECK_EXTENSION: no VFIO_TYPE1v2_IOMMU');
  }
  const group = open(groupPath);
  const status = vfio_group_status.encode({ argsz: vfio_group_status.size });
  ioctl('VFIO_GROUP_GET_STATUS', group, VFIO_GROUP_GET_STATUS, addressOf(status));
  if ((vfio_group_status.decode(status).flags & VFIO_GROUP_FLAGS_VIABLE) === 0) {
    throw refused(`group ${groupPath}: not viable`);
  }
  const containerArgument = Int32Array.of(container);
  ioctl('VFIO_GROUP_SET_CONTAINER', group, VFIO_GROUP_SET_CONTAINER, addressOf(containerArgument));
  ioctl('VFIO_SET_IOMMU', container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU);
  const nameArgument = cString(name);
  return ioctl(`VFIO_GROUP_GET_DEVICE_FD ${name}`, group, VFIO_GROUP_GET_DEVICE_FD, addressOf(nameArgument));
}

/** SAFETY: where `argument` is an address, the caller keeps the memory behind it alive until this returns. */
export function ioctl(doing: string, fd: number, command: number, argument: number): number {
  return syscall(doing, 'ioctl', fd, command, argument);
}

function open(path: string): number {
  const file = cString(path);
  return syscall(`open ${path}`, 'openat', AT_FDCWD, addressOf(file), O_RDWR | O_CLOEXEC);
}

function refused(message: string): ShimError {
  return new ShimError('ERR_FEATURE_UNSUPPORTED', message);
}
