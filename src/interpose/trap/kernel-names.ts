import { readlinkSync } from 'node:fs';
import { characterDevice } from '../../sys/file.ts';
import type { Call } from './call.ts';

/** The path that a link has; empty if it cannot be read. */
export function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

/** The name of a VFIO character device, as the kernel knows it: paths are of somebody's mount namespace. */
export function cdevName(fd: number): string | undefined {
  const device = characterDevice(fd);
  if (device === undefined) return undefined;
  return /\/vfio-dev\/(vfio\d+)$/.exec(linkOf(`/sys/dev/char/${device}`))?.[1];
}

/** The name of the device that a group is asked for, which is for messages only; `undefined` if it cannot be read. */
export function nameIn(call: Call): string | undefined {
  try {
    return call.stringArg(2, 256);
  } catch {
    return undefined;
  }
}
