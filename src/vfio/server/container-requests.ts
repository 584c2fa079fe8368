import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_GET_API_VERSION,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_INFO_PGSIZES,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  VFIO_UNMAP_ALL,
  VFIO_UPDATE_VADDR,
  vfio_iommu_type1_info,
  vfio_iommu_type1_info_cap_iova_range,
  vfio_iommu_type1_info_cap_migration,
  vfio_iommu_type1_info_dma_avail,
  vfio_iova_range,
} from '../../abi/vfio.ts';
import type { ContainerArgument } from '../argument.ts';
import { LAST_IOVA, type ContainerHost, type ContainerState } from './container.ts';
import { refuse } from './refuse.ts';
import { dirtyPages, MAX_BITMAP } from './type1-dirty.ts';
import { mapDma, unmapDma } from './type1-mapping.ts';

const U64 = 2n ** 64n;

/** Requests to an emulated container with a type1 IOMMU, as Linux 6.12 answers them. Dirty are the pages that devices wrote to. */
export function containerRequest(
  argument: ContainerArgument,
  command: number,
  container: ContainerState,
  host: ContainerHost,
): number {
  switch (command) {
    case VFIO_GET_API_VERSION:
      return VFIO_API_VERSION;
    case VFIO_CHECK_EXTENSION:
      return hasExtension(argument.value, container) ? 1 : 0;
    case VFIO_SET_IOMMU:
      return setIommu(argument, container, host);
    default:
      break;
  }
  if (container.iommu === 0) throw refuse('EINVAL', 'container: no IOMMU is set');
  switch (command) {
    case VFIO_IOMMU_GET_INFO:
      return getInfo(argument, host);
    case VFIO_IOMMU_MAP_DMA:
      return mapDma(argument, container, host);
    case VFIO_IOMMU_UNMAP_DMA:
      return unmapDma(argument, container, host);
    case VFIO_IOMMU_DIRTY_PAGES:
      return dirtyPages(argument, container, host);
    default:
      throw refuse('ENOTTY', `container: no ioctl 0x${command.toString(16)}`);
  }
}

/** That addresses can be given up depends on what is in the container, so it is asked for once there is an IOMMU. */
function hasExtension(extension: number, { iommu }: ContainerState): boolean {
  if (extension === VFIO_UPDATE_VADDR) return iommu !== 0;
  return [VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU, VFIO_UNMAP_ALL].includes(extension);
}

function setIommu(argument: ContainerArgument, container: ContainerState, host: ContainerHost): number {
  const type = argument.value;
  if (container.iommu !== 0 || !host.hasGroup(container)) {
    throw refuse('EINVAL', 'VFIO_SET_IOMMU: needs a container with a group and without an IOMMU');
  }
  if (type !== VFIO_TYPE1_IOMMU && type !== VFIO_TYPE1v2_IOMMU)
    throw refuse('ENODEV', `VFIO_SET_IOMMU: no type ${type}`);
  container.iommu = type;
  return 0;
}

function getInfo(argument: ContainerArgument, host: ContainerHost): number {
  const MIN = 16;
  const { argsz } = vfio_iommu_type1_info.decode(padded(argument.read(MIN), vfio_iommu_type1_info.size));
  if (argsz < MIN) throw refuse('EINVAL', `VFIO_IOMMU_GET_INFO: argsz ${argsz}`);
  const infoSize = vfio_iommu_type1_info.size;
  const migrationAt = infoSize;
  const rangesAt = migrationAt + vfio_iommu_type1_info_cap_migration.size;
  const availableAt = rangesAt + vfio_iommu_type1_info_cap_iova_range.size + vfio_iova_range.size;
  const total = availableAt + 16; // its 12 bytes, aligned
  const bytes = new Uint8Array(total);
  const fits = argsz >= total;
  vfio_iommu_type1_info.encode(
    {
      argsz: Math.max(argsz, total),
      flags: VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS,
      iova_pgsizes: U64 - host.pageSize, // that size, and all above
      cap_offset: fits ? migrationAt : 0,
    },
    bytes,
  );
  vfio_iommu_type1_info_cap_migration.encode(
    {
      id: VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
      version: 1,
      next: rangesAt,
      pgsize_bitmap: host.pageSize,
      max_dirty_bitmap_size: MAX_BITMAP,
    },
    bytes,
    migrationAt,
  );
  vfio_iommu_type1_info_cap_iova_range.encode(
    { id: VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, version: 1, next: availableAt, nr_iovas: 1 },
    bytes,
    rangesAt,
  );
  vfio_iova_range.encode({ start: 0n, end: LAST_IOVA }, bytes, rangesAt + vfio_iommu_type1_info_cap_iova_range.size);
  vfio_iommu_type1_info_dma_avail.encode(
    { id: VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, version: 1, avail: host.mappings.available },
    bytes,
    availableAt,
  );
  argument.write(fits ? bytes : bytes.subarray(0, Math.min(argsz, infoSize)));
  return 0;
}

function padded(bytes: Uint8Array, size: number): Uint8Array {
  const whole = new Uint8Array(size);
  whole.set(bytes);
  return whole;
}
