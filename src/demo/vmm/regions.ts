import {
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_REGION_INFO_CAP_SPARSE_MMAP,
  VFIO_REGION_INFO_CAP_TYPE,
  VFIO_REGION_INFO_FLAG_CAPS,
  vfio_device_info,
  vfio_info_cap_header,
  vfio_region_info,
  vfio_region_info_cap_sparse_mmap,
  vfio_region_info_cap_type,
  vfio_region_sparse_mmap_area,
} from '../../abi/vfio.ts';
import { VFIO_REGION_SUBTYPE_MIGRATION, VFIO_REGION_TYPE_MIGRATION } from '../../abi/vfio-v1.ts';
import { ShimError } from '../../error.ts';
import { addressOf } from '../../sys/libc.ts';
import { ioctl } from './vfio.ts';

/** Where a region lies in the device's descriptor, and what `VFIO_DEVICE_GET_REGION_INFO` said about it as a whole. */
export interface Region {
  readonly offset: bigint;
  readonly size: number;
  readonly info: Uint8Array;
}

export function region(fd: number, index: number): Region {
  let info = askRegion(fd, index, vfio_region_info.size);
  const { argsz } = vfio_region_info.decode(info);
  if (argsz > info.length) info = askRegion(fd, index, argsz); // it has capabilities
  const { offset, size } = vfio_region_info.decode(info);
  return { offset, size: Number(size), info };
}

/** A region that a device need not have, such as that of VGA: the kernel answers `EINVAL` for those it lacks. */
function regionIfThere(fd: number, index: number): Region | undefined {
  try {
    return region(fd, index);
  } catch (error) {
    if (error instanceof ShimError && error.errno === 'EINVAL') return undefined;
    throw error;
  }
}

function askRegion(fd: number, index: number, argsz: number): Uint8Array {
  const info = new Uint8Array(argsz);
  vfio_region_info.encode({ argsz, index }, info);
  ioctl(`VFIO_DEVICE_GET_REGION_INFO ${index}`, fd, VFIO_DEVICE_GET_REGION_INFO, addressOf(info));
  return info;
}

/** The region whose capability says that it is the migration region, as QEMU 7.2 looks for it (hw/vfio/common.c). */
export function migrationRegion(fd: number): Region & { readonly dataSection: { offset: number; size: number } } {
  const info = vfio_device_info.encode({ argsz: vfio_device_info.size });
  ioctl('VFIO_DEVICE_GET_INFO', fd, VFIO_DEVICE_GET_INFO, addressOf(info));
  const { num_regions } = vfio_device_info.decode(info);
  for (let index = 0; index < num_regions; index += 1) {
    const candidate = regionIfThere(fd, index);
    if (candidate === undefined) continue;
    const type = capability(candidate.info, VFIO_REGION_INFO_CAP_TYPE);
    if (type === undefined) continue;
    const { type: number, subtype } = vfio_region_info_cap_type.decode(candidate.info, type);
    if (number !== VFIO_REGION_TYPE_MIGRATION || subtype !== VFIO_REGION_SUBTYPE_MIGRATION) continue;
    return { ...candidate, dataSection: mappableArea(candidate.info) };
  }
  throw new ShimError('ERR_FEATURE_UNSUPPORTED', `the device has no migration region among ${num_regions} regions`);
}

function mappableArea(info: Uint8Array): { offset: number; size: number } {
  const at = capability(info, VFIO_REGION_INFO_CAP_SPARSE_MMAP);
  if (at === undefined) throw new ShimError('ERR_FEATURE_UNSUPPORTED', 'the data section cannot be mapped');
  const area = vfio_region_sparse_mmap_area.decode(info, at + vfio_region_info_cap_sparse_mmap.size);
  return { offset: Number(area.offset), size: Number(area.size) };
}

/** Where the capability with this id begins; `undefined` where there is none. */
function capability(info: Uint8Array, id: number): number | undefined {
  const { flags, cap_offset } = vfio_region_info.decode(info);
  let at = (flags & VFIO_REGION_INFO_FLAG_CAPS) === 0 ? 0 : cap_offset;
  while (at >= vfio_region_info.size) {
    const header = vfio_info_cap_header.decode(info, at);
    if (header.id === id) return at;
    if (header.next <= at) return undefined;
    at = header.next;
  }
  return undefined;
}
