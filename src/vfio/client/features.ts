import {
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
} from '../../abi/vfio-v2.ts';
import { hasErrno } from '../../error.ts';
import type { VfioPort } from '../port.ts';

/** `struct vfio_device_feature` with its data (linux/vfio.h, 5.7). */
export function featureRequest(flags: number, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(vfio_device_feature.size + data.length);
  vfio_device_feature.encode({ argsz: bytes.length, flags }, bytes);
  bytes.set(data, vfio_device_feature.size);
  return bytes;
}

function call(port: VfioPort, what: string, flags: number, data: Uint8Array): Uint8Array {
  const bytes = featureRequest(flags, data);
  port.feature(what, bytes);
  return bytes.subarray(vfio_device_feature.size);
}

/** `VFIO_DEVICE_FEATURE` with GET: the feature's data, `size` bytes. Throws `ERR_SYSCALL`; `ENOTTY` where it is absent. */
export function getFeature(port: VfioPort, name: string, index: number, size: number): Uint8Array {
  return call(port, `GET ${name}`, VFIO_DEVICE_FEATURE_GET | index, new Uint8Array(size));
}

/** `VFIO_DEVICE_FEATURE` with SET; returns the data as the kernel left it. */
export function setFeature(port: VfioPort, name: string, index: number, data: Uint8Array): Uint8Array {
  return call(port, `SET ${name}`, VFIO_DEVICE_FEATURE_SET | index, data);
}

/** Whether a device has a feature with these operations (`VFIO_DEVICE_FEATURE_GET` and `_SET`): PROBE changes nothing. */
export function hasFeature(port: VfioPort, index: number, operations: number): boolean {
  try {
    call(port, 'PROBE', VFIO_DEVICE_FEATURE_PROBE | operations | index, new Uint8Array(0));
    return true;
  } catch (error) {
    // ENOTTY: no such feature, or a kernel before 5.7; EINVAL: not this operation
    if (hasErrno(error, 'ENOTTY') || hasErrno(error, 'EINVAL')) return false;
    throw error;
  }
}
