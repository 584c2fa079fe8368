import { VFIO_DEVICE_FEATURE } from '../abi/vfio-ioctl.ts';
import {
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
} from '../abi/vfio-v2.ts';
import { hasErrno } from '../error.ts';
import { ioctl } from '../sys/ioctl.ts';
import type { DeviceHandle } from './handle.ts';

/** `struct vfio_device_feature` with its data (linux/vfio.h, 5.7). */
export function featureRequest(flags: number, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(vfio_device_feature.size + data.length);
  vfio_device_feature.encode({ argsz: bytes.length, flags }, bytes);
  bytes.set(data, vfio_device_feature.size);
  return bytes;
}

function call(device: DeviceHandle, name: string, flags: number, data: Uint8Array): Uint8Array {
  const bytes = featureRequest(flags, data);
  ioctl(device.number, `VFIO_DEVICE_FEATURE ${name}`, VFIO_DEVICE_FEATURE, bytes);
  return bytes.subarray(vfio_device_feature.size);
}

/** `VFIO_DEVICE_FEATURE` with GET: the feature's data, `size` bytes. Throws `ERR_SYSCALL`; `ENOTTY` where it is absent. */
export function getFeature(device: DeviceHandle, name: string, index: number, size: number): Uint8Array {
  return call(device, `GET ${name}`, VFIO_DEVICE_FEATURE_GET | index, new Uint8Array(size));
}

/** `VFIO_DEVICE_FEATURE` with SET; returns the data as the kernel left it. */
export function setFeature(device: DeviceHandle, name: string, index: number, data: Uint8Array): Uint8Array {
  return call(device, `SET ${name}`, VFIO_DEVICE_FEATURE_SET | index, data);
}

/** Whether a device has a feature with these operations (`VFIO_DEVICE_FEATURE_GET` and `_SET`): PROBE changes nothing. */
export function hasFeature(device: DeviceHandle, index: number, operations: number): boolean {
  try {
    call(device, 'PROBE', VFIO_DEVICE_FEATURE_PROBE | operations | index, new Uint8Array(0));
    return true;
  } catch (error) {
    // ENOTTY: no such feature, or a kernel before 5.7; EINVAL: not this operation
    if (hasErrno(error, 'ENOTTY') || hasErrno(error, 'EINVAL')) return false;
    throw error;
  }
}
