import { IOMMU_IOAS_MAP_FIXED_IOVA } from '../../abi/iommufd.ts';
import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_DMA_CC_IOMMU,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_GET_API_VERSION,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_INFO_PGSIZES,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  VFIO_UNMAP_ALL,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
  vfio_iommu_type1_info,
  vfio_iommu_type1_info_cap_iova_range,
  vfio_iommu_type1_info_dma_avail,
  vfio_iova_range,
} from '../../abi/vfio.ts';
import type { ContainerArgument } from '../argument.ts';
import { wraps } from './container.ts';
import { checkWhole, mapMemory } from './ioas-requests.ts';
import { disableLargePages } from './iommufd-option.ts';
import { endOf, freeId, keyOf, objectOf, type Ioas, type IommufdHost, type IommufdState } from './iommufd-state.ts';
import { refuse } from './refuse.ts';

/*
 * /dev/iommu in the place of a container: the requests of a type1 IOMMU are to one address space of the context, which the first group
 * that is put into it makes (drivers/iommu/iommufd/vfio_compat.c of Linux 6.12).
 */

const U64 = 2n ** 64n;
const UNMAP_SIZE = vfio_iommu_type1_dma_unmap.size;

/** A group is put into the context: it has an address space for the requests below from then on. */
export function becomeContainer(context: IommufdState, host: Pick<IommufdHost, 'checkRoom'>): void {
  if (context.vfioIoas !== 0) return;
  host.checkRoom(1, 0);
  const id = freeId(context);
  context.objects.push({ kind: 'ioas', id, allowed: [], largePages: true });
  context.vfioIoas = id;
}

/** The address space that stands for a container's. Throws `ENODEV` if there is none. */
export function compatIoas(context: IommufdState): Ioas {
  if (context.vfioIoas === 0) throw refuse('ENODEV', 'iommufd: no group is in it, and no ioas stands for a container');
  return objectOf(context, 'ioas', context.vfioIoas);
}

/** A request to a container; `undefined` if it is none. */
export function compatRequest(
  argument: ContainerArgument,
  number: number,
  context: IommufdState,
  host: IommufdHost,
): number | undefined {
  switch (number) {
    case VFIO_GET_API_VERSION:
      return VFIO_API_VERSION;
    case VFIO_CHECK_EXTENSION:
      return checkExtension(argument.value, context);
    case VFIO_SET_IOMMU:
      return setIommu(argument.value, context, host);
    case VFIO_IOMMU_GET_INFO:
      return getInfo(argument, context, host);
    case VFIO_IOMMU_MAP_DMA:
      return mapDma(argument, context, host);
    case VFIO_IOMMU_UNMAP_DMA:
      return unmapDma(argument, context, host);
    default:
      return undefined;
  }
}

/** The emulated IOMMU does not say that it keeps caches coherent, as its container does not. */
function checkExtension(extension: number, context: IommufdState): number {
  if (extension === VFIO_DMA_CC_IOMMU) compatIoas(context);
  return [VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU, VFIO_UNMAP_ALL].includes(extension) ? 1 : 0;
}

/** Both types are the same but that pages of type1 are small ones: then a mapping can be unmapped in part. */
function setIommu(type: number, context: IommufdState, host: IommufdHost): number {
  if (type !== VFIO_TYPE1_IOMMU && type !== VFIO_TYPE1v2_IOMMU) throw refuse('EINVAL', `VFIO_SET_IOMMU: type ${type}`);
  const ioas = compatIoas(context);
  if (type === VFIO_TYPE1_IOMMU) disableLargePages(context, ioas, host);
  return 0;
}

function getInfo(argument: ContainerArgument, context: IommufdState, host: IommufdHost): number {
  const MIN = 16;
  const { argsz } = vfio_iommu_type1_info.decode(extended(argument.read(MIN), vfio_iommu_type1_info.size));
  if (argsz < MIN) throw refuse('EINVAL', `VFIO_IOMMU_GET_INFO: argsz ${argsz}`);
  const ioas = compatIoas(context);
  const availableAt = vfio_iommu_type1_info.size;
  const rangesAt = availableAt + 16; // its 12 bytes, aligned
  const total = rangesAt + vfio_iommu_type1_info_cap_iova_range.size + vfio_iova_range.size;
  const bytes = new Uint8Array(total);
  const fits = argsz >= total;
  vfio_iommu_type1_info.encode(
    {
      argsz: total,
      flags: VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS,
      iova_pgsizes: U64 - host.pageSize, // that size, and all above
      cap_offset: fits ? availableAt : 0,
    },
    bytes,
  );
  vfio_iommu_type1_info_dma_avail.encode(
    // Linux says 2^32 - 1, but here there is a limit
    { id: VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, version: 1, next: rangesAt, avail: host.mappings.available },
    bytes,
    availableAt,
  );
  vfio_iommu_type1_info_cap_iova_range.encode(
    { id: VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, version: 1, next: 0, nr_iovas: 1 },
    bytes,
    rangesAt,
  );
  const range = { start: 0n, end: endOf(context, ioas) - 1n };
  vfio_iova_range.encode(range, bytes, rangesAt + vfio_iommu_type1_info_cap_iova_range.size);
  argument.write(fits ? bytes : bytes.subarray(0, Math.min(argsz, vfio_iommu_type1_info.size)));
  return 0;
}

function extended(bytes: Uint8Array, size: number): Uint8Array {
  const whole = new Uint8Array(size);
  whole.set(bytes);
  return whole;
}

function mapDma(argument: ContainerArgument, context: IommufdState, host: IommufdHost): number {
  const { argsz, flags, vaddr, iova, size } = vfio_iommu_type1_dma_map.decode(argument.read(32));
  if (argsz < 32 || (flags & ~(VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE)) !== 0) {
    throw refuse('EINVAL', `VFIO_IOMMU_MAP_DMA: argsz ${argsz}, flags ${flags}`);
  }
  const ioas = compatIoas(context);
  const readable = (flags & VFIO_DMA_MAP_FLAG_READ) !== 0;
  const writable = (flags & VFIO_DMA_MAP_FLAG_WRITE) !== 0;
  const memory = { vaddr, length: size, readable, writable };
  const ask = { argument, context, host };
  mapMemory('VFIO_IOMMU_MAP_DMA', ask, ioas, memory, IOMMU_IOAS_MAP_FIXED_IOVA, iova, () => {});
  return 0;
}

function unmapDma(argument: ContainerArgument, context: IommufdState, host: IommufdHost): number {
  const header = argument.read(UNMAP_SIZE);
  const { argsz, flags, iova, size } = vfio_iommu_type1_dma_unmap.decode(header);
  if (argsz < UNMAP_SIZE || (flags & ~VFIO_DMA_UNMAP_FLAG_ALL) !== 0) {
    throw refuse('EINVAL', `VFIO_IOMMU_UNMAP_DMA: argsz ${argsz}, flags ${flags}`);
  }
  const ioas = compatIoas(context);
  const key = keyOf(context, ioas.id);
  const { mappings } = host;
  const text = `VFIO_IOMMU_UNMAP_DMA: 0x${size.toString(16)} bytes at 0x${iova.toString(16)}`;
  const isAll = (flags & VFIO_DMA_UNMAP_FLAG_ALL) !== 0;
  if (isAll ? iova !== 0n || size !== 0n : size === 0n) throw refuse('EINVAL', `${text}, flags ${flags}`);
  if (!isAll && wraps(iova, size)) throw refuse('EOVERFLOW', `${text} wrap`);
  if (!isAll && !ioas.largePages) cut();
  if (!isAll) checkWhole(text, mappings, key, iova, size);
  argument.write(header); // it can be answered: nothing is unmapped in vain
  const bytes = isAll ? mappings.unmapAll(key, argument.id) : mappings.unmap(key, iova, size, argument.id);
  argument.write(vfio_iommu_type1_dma_unmap.encode({ argsz, flags, iova, size: bytes }));
  return 0;

  function cut(): void {
    for (const at of [iova, iova + size]) {
      const whole = mappings.at(key, at);
      if (whole === undefined || whole.iova === at) continue;
      if (at % host.pageSize !== 0n) throw refuse('EINVAL', `${text} are no whole pages`);
      mappings.cut(key, at);
    }
  }
}
