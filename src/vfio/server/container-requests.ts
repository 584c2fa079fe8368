import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
  VFIO_GET_API_VERSION,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
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
  vfio_bitmap,
  vfio_iommu_type1_dirty_bitmap,
  vfio_iommu_type1_dirty_bitmap_get,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
  vfio_iommu_type1_info,
  vfio_iommu_type1_info_cap_iova_range,
  vfio_iommu_type1_info_cap_migration,
  vfio_iommu_type1_info_dma_avail,
  vfio_iova_range,
} from '../../abi/vfio.ts';
import type { ContainerArgument } from '../argument.ts';
import type { IovaRange } from '../dma-log.ts';
import { refuse } from './refuse.ts';
import type { DmaMappings } from './dma-mappings.ts';
import type { WindowLog } from './window-log.ts';

/** type1's own limit (drivers/vfio/vfio_iommu_type1.c: DIRTY_BITMAP_SIZE_MAX). */
const MAX_BITMAP = 256n * 1024n * 1024n;
const LAST_IOVA = 0xffff_ffff_ffffn;
const U64 = 2n ** 64n;

/** An open /dev/vfio/vfio. `inode` names it; `iommu` is 0 before VFIO_SET_IOMMU. */
export interface ContainerState {
  readonly inode: number;
  iommu: number;
  /** Dirty pages are being logged. */
  logging: boolean;
}

/** Everything that a request may need besides the container. */
export interface ContainerHost {
  /** Bytes of a page of the host, a power of two: no mapping has less, and it is what dirty pages are told by. */
  readonly pageSize: bigint;
  readonly mappings: DmaMappings;
  hasGroup(container: ContainerState): boolean;
  /** The process that makes the request, as a number by which its memory is found later; 0 if nobody will look for it. */
  mapper(): bigint;
  /** What each device in the container that does DMA has written to. */
  logs(container: ContainerState): readonly WindowLog[];
}

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
      return [VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU, VFIO_UNMAP_ALL].includes(argument.value) ? 1 : 0;
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

function mapDma(argument: ContainerArgument, container: ContainerState, host: ContainerHost): number {
  const { argsz, flags, vaddr, iova, size } = vfio_iommu_type1_dma_map.decode(argument.read(32));
  const access = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
  if (argsz < 32 || (flags & ~access) !== 0 || (flags & access) === 0) {
    throw refuse('EINVAL', `VFIO_IOMMU_MAP_DMA: argsz ${argsz}, flags ${flags}`);
  }
  if (size === 0n || (size | iova | vaddr) % host.pageSize !== 0n || iova + size > U64 || vaddr + size > U64) {
    throw refuse('EINVAL', `VFIO_IOMMU_MAP_DMA: 0x${size.toString(16)} bytes at 0x${iova.toString(16)}`);
  }
  if (iova + size - 1n > LAST_IOVA)
    throw refuse('EINVAL', `VFIO_IOMMU_MAP_DMA: 0x${iova.toString(16)} is out of range`);
  const writable = (flags & VFIO_DMA_MAP_FLAG_WRITE) !== 0;
  host.mappings.map(BigInt(container.inode), iova, size, argument.id, { process: host.mapper(), vaddr, writable });
  return 0;
}

function unmapDma(argument: ContainerArgument, container: ContainerState, host: ContainerHost): number {
  const header = argument.read(vfio_iommu_type1_dma_unmap.size);
  const { argsz, flags, iova, size } = vfio_iommu_type1_dma_unmap.decode(header);
  const known = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP | VFIO_DMA_UNMAP_FLAG_ALL;
  if (argsz < 24 || (flags & ~known) !== 0 || flags === known) {
    throw refuse('EINVAL', `VFIO_IOMMU_UNMAP_DMA: argsz ${argsz}, flags ${flags}`);
  }
  const owner = BigInt(container.inode);
  argument.write(header); // it can be answered: nothing is unmapped in vain
  let bytes: bigint;
  if ((flags & VFIO_DMA_UNMAP_FLAG_ALL) !== 0) {
    if (iova !== 0n || size !== 0n) throw refuse('EINVAL', 'VFIO_IOMMU_UNMAP_DMA: with ALL, iova and size must be 0');
    bytes = host.mappings.unmapAll(owner, argument.id);
  } else {
    if (size === 0n || (size | iova) % host.pageSize !== 0n || iova + size > U64) {
      throw refuse('EINVAL', `VFIO_IOMMU_UNMAP_DMA: 0x${size.toString(16)} bytes at 0x${iova.toString(16)}`);
    }
    if ((flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP) !== 0) {
      if (argsz < 24 + vfio_bitmap.size || !container.logging) {
        throw refuse('EINVAL', 'VFIO_IOMMU_UNMAP_DMA: a dirty bitmap needs argsz for it, and logging');
      }
      const whole = argument.read(24 + vfio_bitmap.size);
      host.mappings.checkWhole(owner, iova, size); // what is told is unmapped
      writeDirtyBitmap(argument, vfio_bitmap.decode(whole, 24), { iova, length: size }, container, host);
    }
    bytes = host.mappings.unmap(owner, iova, size, argument.id);
  }
  argument.write(vfio_iommu_type1_dma_unmap.encode({ argsz, flags, iova, size: bytes }));
  return 0;
}

function dirtyPages(argument: ContainerArgument, container: ContainerState, host: ContainerHost): number {
  if (container.iommu !== VFIO_TYPE1v2_IOMMU) throw refuse('EACCES', 'VFIO_IOMMU_DIRTY_PAGES: only with type1v2');
  const { argsz, flags } = vfio_iommu_type1_dirty_bitmap.decode(argument.read(8));
  if (argsz < 8) throw refuse('EINVAL', `VFIO_IOMMU_DIRTY_PAGES: argsz ${argsz}`);
  switch (flags) {
    case VFIO_IOMMU_DIRTY_PAGES_FLAG_START:
      if (!container.logging) for (const log of host.logs(container)) log.clear();
      container.logging = true;
      return 0;
    case VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP:
      container.logging = false;
      return 0;
    case VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP: {
      if (argsz < 8 + vfio_iommu_type1_dirty_bitmap_get.size || !container.logging) {
        throw refuse('EINVAL', 'VFIO_IOMMU_DIRTY_PAGES: GET_BITMAP needs argsz for it, and logging');
      }
      const whole = argument.read(8 + vfio_iommu_type1_dirty_bitmap_get.size);
      const { iova, size, ...bitmap } = vfio_iommu_type1_dirty_bitmap_get.decode(whole, 8);
      if (size === 0n || (iova | size) % host.pageSize !== 0n || iova + size > U64)
        throw refuse('EINVAL', 'GET_BITMAP: bad range');
      host.mappings.checkWhole(BigInt(container.inode), iova, size);
      const into = { pgsize: bitmap.bitmap_pgsize, size: bitmap.bitmap_size, data: bitmap.bitmap_data };
      writeDirtyBitmap(argument, into, { iova, length: size }, container, host);
      return 0;
    }
    default:
      throw refuse('EINVAL', `VFIO_IOMMU_DIRTY_PAGES: flags ${flags}`);
  }
}

/** Of a bitmap, what is made at once. */
const PIECE = 1024 * 1024;

/** Writes the bitmap of a range, in pieces of our own size. What could not be told is told the next time. */
function writeDirtyBitmap(
  argument: ContainerArgument,
  { pgsize, size, data }: ReturnType<typeof vfio_bitmap.decode>,
  range: IovaRange,
  container: ContainerState,
  host: ContainerHost,
): void {
  const { pageSize } = host;
  const needed = ((range.length / pageSize + 63n) / 64n) * 8n;
  if (pgsize !== pageSize || size < needed || size > MAX_BITMAP) {
    throw refuse('EINVAL', `dirty bitmap: ${size} bytes for ${range.length} with pages of ${pgsize}`);
  }
  const logs = host.logs(container);
  for (const log of logs) log.collect(range);
  const bits = new Uint8Array(Math.min(PIECE, Number(needed)));
  try {
    for (let done = 0n; done < needed; done += BigInt(bits.length)) {
      const left = needed - done;
      const piece = left < bits.length ? bits.subarray(0, Number(left)) : bits;
      const skipped = done * 8n * pageSize;
      const rest = range.length - skipped;
      const whole = BigInt(piece.length) * 8n * pageSize;
      piece.fill(0);
      const part = { iova: range.iova + skipped, length: rest < whole ? rest : whole };
      for (const log of logs) log.tell(part, { pageSize, bits: piece });
      argument.writeAt(data + done, piece);
    }
  } catch (error) {
    for (const log of logs) log.giveBack();
    throw error;
  }
}

function padded(bytes: Uint8Array, size: number): Uint8Array {
  const whole = new Uint8Array(size);
  whole.set(bytes);
  return whole;
}
