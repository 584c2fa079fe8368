import {
  VFIO_REGION_INFO_CAP_SPARSE_MMAP,
  VFIO_REGION_INFO_CAP_TYPE,
  VFIO_REGION_INFO_FLAG_CAPS,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
  vfio_region_info,
  vfio_region_info_cap_sparse_mmap,
  vfio_region_info_cap_type,
  vfio_region_sparse_mmap_area,
} from '../../abi/vfio.ts';
import { VFIO_REGION_TYPE_MIGRATION_DRAFT } from '../../abi/vfio-drafts.ts';
import { VFIO_REGION_SUBTYPE_MIGRATION, VFIO_REGION_TYPE_MIGRATION } from '../../abi/vfio-v1.ts';
import type { Draft } from '../../v1/drafts/device.ts';

/** The type by which VMMs of a generation find the region. */
export function migrationRegionType(generation: 'v1' | Draft): number {
  return generation === 'v1' ? VFIO_REGION_TYPE_MIGRATION : VFIO_REGION_TYPE_MIGRATION_DRAFT;
}

/** A migration region that is added to a device's own: the offset by which it is accessed, and where its data section lies in it. */
export interface MigrationRegion {
  readonly generation: 'v1' | Draft;
  readonly offset: bigint;
  readonly dataSection: { readonly offset: number; readonly size: number };
  /** The data section can be mapped. */
  readonly mappable: boolean;
}

/** The region's info with its capabilities; if `argsz` is too small for them, without, and with the argsz that they need. */
export function migrationRegionInfo(
  argsz: number,
  index: number,
  { generation, offset, dataSection, mappable }: MigrationRegion,
): Uint8Array {
  const typeAt = vfio_region_info.size;
  const sparseAt = typeAt + vfio_region_info_cap_type.size;
  const areaAt = sparseAt + vfio_region_info_cap_sparse_mmap.size;
  const total = mappable ? areaAt + vfio_region_sparse_mmap_area.size : sparseAt;
  const fits = argsz >= total;
  const bytes = new Uint8Array(total);
  vfio_region_info.encode(
    {
      argsz: Math.max(argsz, total),
      flags:
        VFIO_REGION_INFO_FLAG_READ |
        VFIO_REGION_INFO_FLAG_WRITE |
        (mappable ? VFIO_REGION_INFO_FLAG_MMAP : 0) |
        VFIO_REGION_INFO_FLAG_CAPS,
      index,
      cap_offset: fits ? typeAt : 0,
      size: BigInt(dataSection.offset + dataSection.size),
      offset,
    },
    bytes,
  );
  vfio_region_info_cap_type.encode(
    {
      id: VFIO_REGION_INFO_CAP_TYPE,
      version: 1,
      next: mappable ? sparseAt : 0,
      type: migrationRegionType(generation),
      subtype: VFIO_REGION_SUBTYPE_MIGRATION,
    },
    bytes,
    typeAt,
  );
  if (mappable) {
    const capability = { id: VFIO_REGION_INFO_CAP_SPARSE_MMAP, version: 1, nr_areas: 1 };
    vfio_region_info_cap_sparse_mmap.encode(capability, bytes, sparseAt);
    const area = { offset: BigInt(dataSection.offset), size: BigInt(dataSection.size) };
    vfio_region_sparse_mmap_area.encode(area, bytes, areaAt);
  }
  return fits ? bytes : bytes.subarray(0, vfio_region_info.size);
}
