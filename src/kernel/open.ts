import { constants, openSync } from 'node:fs';
import { basename } from 'node:path';
import type { ErrnoName } from '../abi/errno.ts';
import { vfio_device_bind_iommufd, vfio_group_status } from '../abi/vfio-device.ts';
import { VFIO_API_VERSION, VFIO_GROUP_FLAGS_VIABLE, VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU } from '../abi/vfio-device.ts';
import {
  VFIO_CHECK_EXTENSION,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_GET_API_VERSION,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_SET_IOMMU,
} from '../abi/vfio-ioctl.ts';
import { ShimError } from '../error.ts';
import { OwnedFd } from '../sys/fd.ts';
import { ioctl, ioctlValue } from '../sys/ioctl.ts';
import { cString } from '../sys/libc.ts';
import { FdPort } from './fd-port.ts';
import type { DeviceHandle } from './handle.ts';

/** An open VFIO device of the kernel, and what it took to open it. */
export interface OpenedDevice extends DeviceHandle, Disposable {
  /** As in sysfs: a PCI address, or the UUID of a mediated device. */
  readonly name: string;
  readonly port: FdPort;
  close(): void;
}

/** A descriptor that is ours to close. */
type Descriptor = Pick<OwnedFd, 'number' | 'close'>;

/** The system calls that it takes to open a device. A test hands in others. */
export interface OpenCalls {
  /** open(2), to read and write. Throws as Node does. */
  open(path: string): Descriptor;
  /** For a descriptor that an ioctl has returned. */
  own(fd: number): Descriptor;
  readonly ioctl: typeof ioctl;
  readonly ioctlValue: typeof ioctlValue;
}

const systemCalls: OpenCalls = {
  open: (path) => new OwnedFd(openSync(path, constants.O_RDWR)),
  own: (fd) => new OwnedFd(fd),
  ioctl,
  ioctlValue,
};

const CONTAINER = '/dev/vfio/vfio';
const IOMMUFD = '/dev/iommu';

/**
 * Opens `/dev/vfio/GROUP:NAME` (group and container, linux/vfio.h 3.6) or `/dev/vfio/devices/vfioN` (cdev and iommufd,
 * 6.6), in the steps of a VMM, but without mapping memory for its DMA.
 */
export function openKernelDevice(path: string, calls = systemCalls): OpenedDevice {
  if (path.startsWith('/dev/vfio/devices/')) return openCdev(calls, path);
  const at = path.indexOf(':');
  if (at < 0) {
    throw new ShimError(
      'ERR_ARGUMENT',
      `device vfio:${path}: name the device in the group, e.g. vfio:/dev/vfio/26:0000:01:00.0, or give /dev/vfio/devices/vfioN`,
    );
  }
  return openInGroup(calls, path.slice(0, at), path.slice(at + 1));
}

class Opened implements OpenedDevice {
  readonly name: string;
  readonly port = new FdPort(this);
  readonly #device: Descriptor;
  readonly #others: readonly Descriptor[];

  constructor(name: string, device: Descriptor, others: readonly Descriptor[]) {
    this.name = name;
    this.#device = device;
    this.#others = others;
  }

  get number(): number {
    return this.#device.number;
  }

  close(): void {
    for (const fd of [this.#device, ...this.#others]) fd.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function openInGroup(calls: OpenCalls, groupPath: string, name: string): OpenedDevice {
  const opened: Descriptor[] = [];
  try {
    const group = openNode(calls, groupPath, 'is the device bound to a vfio driver?');
    opened.unshift(group);
    const container = openNode(calls, CONTAINER, 'is the module vfio loaded?');
    opened.push(container);
    const status = vfio_group_status.encode({ argsz: vfio_group_status.size });
    calls.ioctl(group.number, 'VFIO_GROUP_GET_STATUS', VFIO_GROUP_GET_STATUS, status);
    if ((vfio_group_status.decode(status).flags & VFIO_GROUP_FLAGS_VIABLE) === 0) {
      throw new ShimError(
        'ERR_DEVICE',
        `${groupPath}: the group is not viable: other devices in it are bound to drivers of the host`,
        { errno: 'EPERM' },
      );
    }
    setContainer(calls, container, group, groupPath);
    const label = cString(name);
    let device: number;
    try {
      device = calls.ioctl(group.number, 'VFIO_GROUP_GET_DEVICE_FD', VFIO_GROUP_GET_DEVICE_FD, label);
    } catch (error) {
      if (!(error instanceof ShimError) || error.errno !== 'ENODEV') throw error;
      throw new ShimError('ERR_DEVICE', `${groupPath}: has no device ${name}`, { errno: 'ENODEV', cause: error });
    }
    return new Opened(name, calls.own(device), opened);
  } catch (error) {
    for (const fd of opened) fd.close();
    throw error;
  }
}

function setContainer(calls: OpenCalls, container: Descriptor, group: Descriptor, groupPath: string): void {
  const version = calls.ioctlValue(container.number, 'VFIO_GET_API_VERSION', VFIO_GET_API_VERSION);
  if (version !== VFIO_API_VERSION) {
    throw new ShimError('ERR_KERNEL_FEATURE', `${CONTAINER}: API version ${version}, not ${VFIO_API_VERSION}`);
  }
  const argument = new Uint8Array(new Int32Array([container.number]).buffer);
  try {
    calls.ioctl(group.number, 'VFIO_GROUP_SET_CONTAINER', VFIO_GROUP_SET_CONTAINER, argument);
  } catch (error) {
    if (!(error instanceof ShimError) || error.errno !== 'EINVAL') throw error;
    throw new ShimError('ERR_DEVICE', `${groupPath}: is in use: it has a container already`, {
      errno: 'EBUSY',
      cause: error,
    });
  }
  const supported = [VFIO_TYPE1v2_IOMMU, VFIO_TYPE1_IOMMU].find(
    (type) => calls.ioctlValue(container.number, 'VFIO_CHECK_EXTENSION', VFIO_CHECK_EXTENSION, type) > 0,
  );
  if (supported === undefined) {
    throw new ShimError('ERR_KERNEL_FEATURE', `${CONTAINER}: no type 1 IOMMU; is the module vfio_iommu_type1 loaded?`);
  }
  calls.ioctlValue(container.number, 'VFIO_SET_IOMMU', VFIO_SET_IOMMU, supported);
}

function openCdev(calls: OpenCalls, path: string): OpenedDevice {
  const device = openNode(
    calls,
    path,
    'is the device bound to a vfio driver, and does the kernel have VFIO_DEVICE_CDEV?',
  );
  let iommu: Descriptor | undefined;
  try {
    iommu = openNode(calls, IOMMUFD, 'does the kernel have IOMMUFD?');
    bindToIommufd(calls, device, iommu, path);
    return new Opened(basename(path), device, [iommu]);
  } catch (error) {
    iommu?.close();
    device.close();
    throw error;
  }
}

/** A node can be opened by several; EINVAL says that one of them has bound the device, EBUSY that its group is open (6.12). */
function bindToIommufd(calls: OpenCalls, device: Descriptor, iommu: Descriptor, path: string): void {
  const bind = vfio_device_bind_iommufd.encode({ argsz: vfio_device_bind_iommufd.size, iommufd: iommu.number });
  try {
    calls.ioctl(device.number, 'VFIO_DEVICE_BIND_IOMMUFD', VFIO_DEVICE_BIND_IOMMUFD, bind);
  } catch (error) {
    if (!(error instanceof ShimError) || !['EINVAL', 'EBUSY'].includes(error.errno ?? '')) throw error;
    throw new ShimError('ERR_DEVICE', `${path}: is in use by another process`, { errno: 'EBUSY', cause: error });
  }
}

function openNode(calls: OpenCalls, path: string, hint: string): Descriptor {
  try {
    return calls.open(path);
  } catch (error) {
    const { code = 'EIO' } = error as NodeJS.ErrnoException;
    const reasons: Readonly<Record<string, string>> = {
      ENOENT: `does not exist; ${hint}`,
      EACCES: 'permission denied',
      EPERM: 'permission denied',
      EBUSY: 'is in use by another process',
    };
    const errno = code as ErrnoName; // Node names what the kernel answered
    throw new ShimError('ERR_DEVICE', `${path}: ${reasons[code] ?? code}`, { errno, syscall: 'open', cause: error });
  }
}
