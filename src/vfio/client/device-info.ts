import {
  VFIO_REGION_INFO_CAP_SPARSE_MMAP,
  VFIO_REGION_INFO_CAP_TYPE,
  VFIO_REGION_INFO_FLAG_CAPS,
  vfio_device_info,
  vfio_region_info,
  vfio_region_info_cap_sparse_mmap,
  vfio_region_info_cap_type,
  vfio_region_sparse_mmap_area,
} from '../../abi/vfio-device.ts';
import { VFIO_REGION_SUBTYPE_MIGRATION, VFIO_REGION_TYPE_MIGRATION } from '../../abi/vfio-v1.ts';
import { hasErrno, ShimError } from '../../error.ts';
import type { RegionPlace, VfioPort } from '../port.ts';
import { capabilities } from './capabilities.ts';

/** `VFIO_DEVICE_GET_INFO`: `VFIO_DEVICE_FLAGS_*`, and how many regions and interrupts there are. */
export interface DeviceInfo {
  readonly flags: number;
  readonly regions: number;
  readonly irqs: number;
}

/** `VFIO_DEVICE_GET_REGION_INFO`, sizes in bytes, with the capabilities that migration needs. */
export interface RegionInfo extends RegionPlace {
  /** `VFIO_REGION_INFO_FLAG_*`. */
  readonly flags: number;
  readonly size: number;
  readonly type: { readonly type: number; readonly subtype: number } | undefined;
  /** The parts that may be mapped; `undefined` without the capability: then the whole region may be mapped, or none of it. */
  readonly sparse: readonly { readonly offset: number; readonly size: number }[] | undefined;
}

/** More regions than any device has: of a driver that counts more, the rest is not asked for. */
const MAX_REGIONS = 4096;
/** Room for the capabilities of a region; a chain that needs more is none of ours. */
const MAX_INFO = 64 * 1024;

export function deviceInfo(port: VfioPort): DeviceInfo {
  const bytes = vfio_device_info.encode({ argsz: vfio_device_info.size });
  port.getInfo(bytes);
  const { flags, num_regions, num_irqs } = vfio_device_info.decode(bytes);
  return { flags, regions: num_regions, irqs: num_irqs };
}

/** `undefined` if the device has no such region. Throws `ERR_DEVICE` for an answer that cannot be. */
export function regionInfo(port: VfioPort, index: number): RegionInfo | undefined {
  let bytes = ask(port, index, vfio_region_info.size);
  if (bytes === undefined) return undefined;
  const { argsz } = vfio_region_info.decode(bytes);
  if (argsz > bytes.length && argsz <= MAX_INFO) bytes = ask(port, index, argsz) ?? bytes;
  return regionInfoIn(bytes, index);
}

/** The same, of the struct that a device has answered. */
export function regionInfoIn(bytes: Uint8Array, index: number): RegionInfo {
  const { flags, size, offset, cap_offset } = vfio_region_info.decode(bytes);
  const caps = (flags & VFIO_REGION_INFO_FLAG_CAPS) === 0 ? new Map<number, number>() : capabilities(bytes, cap_offset);
  return {
    index,
    flags,
    size: safe(size, `region ${index}: size`),
    offset,
    type: typeOf(bytes, caps.get(VFIO_REGION_INFO_CAP_TYPE)),
    sparse: sparseOf(bytes, caps.get(VFIO_REGION_INFO_CAP_SPARSE_MMAP)),
  };
}

function ask(port: VfioPort, index: number, argsz: number): Uint8Array | undefined {
  const bytes = new Uint8Array(argsz);
  vfio_region_info.encode({ argsz, index }, bytes);
  try {
    port.getRegionInfo(bytes);
    return bytes;
  } catch (error) {
    if (hasErrno(error, 'EINVAL')) return undefined;
    throw error;
  }
}

function typeOf(bytes: Uint8Array, at: number | undefined): RegionInfo['type'] {
  if (at === undefined || at + vfio_region_info_cap_type.size > bytes.length) return undefined;
  const { type, subtype } = vfio_region_info_cap_type.decode(bytes, at);
  return { type, subtype };
}

function sparseOf(bytes: Uint8Array, at: number | undefined): RegionInfo['sparse'] {
  if (at === undefined || at + vfio_region_info_cap_sparse_mmap.size > bytes.length) return undefined;
  const { nr_areas } = vfio_region_info_cap_sparse_mmap.decode(bytes, at);
  const areas: { offset: number; size: number }[] = [];
  for (let n = 0; n < nr_areas; n += 1) {
    const place = at + vfio_region_info_cap_sparse_mmap.size + n * vfio_region_sparse_mmap_area.size;
    if (place + vfio_region_sparse_mmap_area.size > bytes.length) break;
    const { offset, size } = vfio_region_sparse_mmap_area.decode(bytes, place);
    areas.push({ offset: safe(offset, 'sparse area: offset'), size: safe(size, 'sparse area: size') });
  }
  return areas;
}

/** The regions of a device of which deviceInfo() counts so many. */
export function* regionsOf(port: VfioPort, count: number): Generator<RegionInfo> {
  for (let index = 0; index < Math.min(count, MAX_REGIONS); index += 1) {
    const region = regionInfo(port, index);
    if (region !== undefined) yield region;
  }
}

/** The v1 migration region (linux/vfio.h, 5.8), if the device has one. */
export function findMigrationRegion(port: VfioPort): RegionInfo | undefined {
  return migrationRegionAmong(regionsOf(port, deviceInfo(port).regions), VFIO_REGION_TYPE_MIGRATION);
}

/** The first migration region of a type: that of v1, or of the drafts. */
export function migrationRegionAmong(regions: Iterable<RegionInfo>, type: number): RegionInfo | undefined {
  for (const region of regions) {
    if (region.type?.type === type && region.type.subtype === VFIO_REGION_SUBTYPE_MIGRATION) return region;
  }
  return undefined;
}

function safe(value: bigint, what: string): number {
  if (value <= Number.MAX_SAFE_INTEGER) return Number(value);
  throw new ShimError('ERR_DEVICE', `driver: ${what} is ${value}`, { errno: 'EIO' });
}
