import { vfio_device_info, vfio_region_info } from '../../abi/vfio.ts';
import type { Argument } from '../argument.ts';
import type { VfioPort } from '../port.ts';
import { migrationRegionInfo, type MigrationRegion } from './migration-region.ts';

/*
 * Requests to a device whose driver answers them, but for a migration region that is added behind the driver's own regions. Each
 * function returns false, with nothing written, if the request is the driver's alone to answer.
 */

const { argsz: ARGSZ, num_regions: NUM_REGIONS, cap_offset: CAP_OFFSET } = vfio_device_info.fields;

/** The least that a user has of `struct vfio_device_info`: what came before `cap_offset` (linux/vfio.h, 5.8). */
const [, LEAST_INFO] = CAP_OFFSET;
/** All of it without capabilities, as later headers pad it. */
const INFO_SIZE = 24;
/** The longest answer with capabilities that is passed on. */
const MAX_INFO = 64 * 1024;

/** `VFIO_DEVICE_GET_INFO`: the driver's own answer, capabilities included, with one more region. Throws as the driver. */
export function infoWithAddedRegion(argument: Argument, port: Pick<VfioPort, 'getInfo'>): boolean {
  const argsz = u32(argument.read(4), ARGSZ[1]);
  if (argsz < LEAST_INFO) return false; // the driver says EINVAL
  const ask = (size: number): Uint8Array => {
    const bytes = new Uint8Array(argument.read(size));
    putU32(bytes, ARGSZ[1], size);
    port.getInfo(bytes);
    return bytes;
  };
  let bytes = ask(Math.min(argsz, INFO_SIZE));
  const needed = u32(bytes, ARGSZ[1]);
  if (needed > bytes.length && needed <= Math.min(argsz, MAX_INFO)) bytes = ask(needed);
  putU32(bytes, NUM_REGIONS[1], u32(bytes, NUM_REGIONS[1]) + 1);
  // if it holds all that there is, argsz stays what the user said
  if (u32(bytes, ARGSZ[1]) <= bytes.length) putU32(bytes, ARGSZ[1], argsz);
  argument.write(bytes);
  return true;
}

/** The index of the region that a `VFIO_DEVICE_GET_REGION_INFO` is about. */
export function regionAskedFor(argument: Argument): number {
  return vfio_region_info.decode(argument.read(vfio_region_info.size)).index;
}

/** `VFIO_DEVICE_GET_REGION_INFO`, if it is about the region that was added, at `added`. */
export function addedRegionInfo(argument: Argument, added: number, region: MigrationRegion): boolean {
  const { argsz, index } = vfio_region_info.decode(argument.read(vfio_region_info.size));
  if (index !== added || argsz < vfio_region_info.size) return false; // the driver says EINVAL of such an argsz
  argument.write(migrationRegionInfo(argsz, index, region));
  return true;
}

function u32(bytes: Uint8Array, at: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(at, true);
}

function putU32(bytes: Uint8Array, at: number, value: number): void {
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(at, value, true);
}
