import {
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
  VFIO_TYPE1v2_IOMMU,
  vfio_iommu_type1_dirty_bitmap,
  vfio_iommu_type1_dirty_bitmap_get,
  type vfio_bitmap,
} from '../../abi/vfio.ts';
import type { ContainerArgument } from '../argument.ts';
import type { IovaRange } from '../dma-log.ts';
import { writeDirtyBitmap } from './dirty-bitmap.ts';
import { refuse } from './refuse.ts';
import { wraps, wrapped, type ContainerHost, type ContainerState } from './container.ts';

/** type1's own limit (drivers/vfio/vfio_iommu_type1.c: DIRTY_BITMAP_SIZE_MAX). */
export const MAX_BITMAP = 256n * 1024n * 1024n;

/** `VFIO_IOMMU_DIRTY_PAGES` (drivers/vfio/vfio_iommu_type1.c of Linux 6.12: vfio_iommu_type1_dirty_pages). */
export function dirtyPages(argument: ContainerArgument, container: ContainerState, host: ContainerHost): number {
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
      if (size !== 0n && wraps(iova, size)) throw wrapped(host, 'GET_BITMAP: the range wraps');
      if (size === 0n || (iova | size) % host.pageSize !== 0n) throw refuse('EINVAL', 'GET_BITMAP: bad range');
      host.mappings.checkWhole(BigInt(container.inode), iova, size);
      const into = { pgsize: bitmap.bitmap_pgsize, size: bitmap.bitmap_size, data: bitmap.bitmap_data };
      tellDirty(argument, into, { iova, length: size }, container, host);
      return 0;
    }
    default:
      throw refuse('EINVAL', `VFIO_IOMMU_DIRTY_PAGES: flags ${flags}`);
  }
}

/** Writes what the container's devices have written to since this was asked last. */
export function tellDirty(
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
  writeDirtyBitmap(argument, { data, pageSize, adds: false }, range, host.logs(container));
}
