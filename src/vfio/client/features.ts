import {
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
} from '../../abi/vfio-v2.ts';
import { hasErrno } from '../../error.ts';
import type { Pointed, VfioPort } from '../port.ts';

/** `struct vfio_device_feature` with its data (linux/vfio.h, 5.7). */
export function featureRequest(flags: number, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(vfio_device_feature.size + data.length);
  vfio_device_feature.encode({ argsz: bytes.length, flags }, bytes);
  bytes.set(data, vfio_device_feature.size);
  return bytes;
}

/**
 * One request, `flags` being the feature's index and what to do with it. Returns the data as the device has left it. `pointed`: what a
 * pointer in the data leads to, counted from there. Throws `ERR_SYSCALL`, with `ENOTTY` if the feature is absent.
 */
export function askFeature(
  port: VfioPort,
  what: string,
  flags: number,
  data: Uint8Array,
  pointed?: Pointed,
): Uint8Array {
  const bytes = featureRequest(flags, data);
  const { size } = vfio_device_feature;
  port.feature(what, bytes, pointed && { ...pointed, at: size + pointed.at });
  return bytes.subarray(size);
}

/** `VFIO_DEVICE_FEATURE` with GET: the feature's data, `size` bytes. Throws as {@link askFeature}. */
export function getFeature(port: VfioPort, name: string, index: number, size: number): Uint8Array {
  return askFeature(port, `GET ${name}`, VFIO_DEVICE_FEATURE_GET | index, new Uint8Array(size));
}

/** `VFIO_DEVICE_FEATURE` with SET; returns the data as the kernel left it. */
export function setFeature(port: VfioPort, name: string, index: number, data: Uint8Array): Uint8Array {
  return askFeature(port, `SET ${name}`, VFIO_DEVICE_FEATURE_SET | index, data);
}

/** Asks whether a device has a feature with these operations (`VFIO_DEVICE_FEATURE_GET` and `_SET`). PROBE changes nothing. */
export function hasFeature(port: VfioPort, index: number, operations: number): boolean {
  try {
    askFeature(port, 'PROBE', VFIO_DEVICE_FEATURE_PROBE | operations | index, new Uint8Array(0));
    return true;
  } catch (error) {
    // ENOTTY: no such feature, or a kernel before 5.7; EINVAL: not this operation
    if (hasErrno(error, 'ENOTTY') || hasErrno(error, 'EINVAL')) return false;
    throw error;
  }
}
