import { struct } from './struct.ts';

/** `struct vfio_iommu_type1_info` and its flags (linux/vfio.h, 3.6; `cap_offset` 5.4). 20 bytes of fields, padded to 24. */
export const VFIO_IOMMU_INFO_PGSIZES = 1;
export const VFIO_IOMMU_INFO_CAPS = 2;
export const vfio_iommu_type1_info = struct('vfio_iommu_type1_info', 24, {
  argsz: ['u32', 0],
  flags: ['u32', 4],
  iova_pgsizes: ['u64', 8],
  cap_offset: ['u32', 16],
});

/** Capabilities of `struct vfio_iommu_type1_info` (linux/vfio.h, 5.4, 5.8 and 5.10). */
export const VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE = 1;
export const VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION = 2;
export const VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL = 3;

/** `struct vfio_iommu_type1_info_cap_iova_range`, up to `iova_ranges[]`, which is `nr_iovas` times {@link vfio_iova_range}. */
export const vfio_iommu_type1_info_cap_iova_range = struct('vfio_iommu_type1_info_cap_iova_range', 16, {
  id: ['u16', 0],
  version: ['u16', 2],
  next: ['u32', 4],
  nr_iovas: ['u32', 8],
  reserved: ['u32', 12],
});
export const vfio_iova_range = struct('vfio_iova_range', 16, { start: ['u64', 0], end: ['u64', 8] });

/** `struct vfio_iommu_type1_info_cap_migration`: the container can log dirty pages. */
export const vfio_iommu_type1_info_cap_migration = struct('vfio_iommu_type1_info_cap_migration', 32, {
  id: ['u16', 0],
  version: ['u16', 2],
  next: ['u32', 4],
  flags: ['u32', 8],
  pgsize_bitmap: ['u64', 16],
  max_dirty_bitmap_size: ['u64', 24],
});

/** `struct vfio_iommu_type1_info_dma_avail`: how many more mappings are allowed. */
export const vfio_iommu_type1_info_dma_avail = struct('vfio_iommu_type1_info_dma_avail', 12, {
  id: ['u16', 0],
  version: ['u16', 2],
  next: ['u32', 4],
  avail: ['u32', 8],
});

/** `struct vfio_iommu_type1_dma_map` and its flags (linux/vfio.h, 3.6; VADDR 5.12). */
export const VFIO_DMA_MAP_FLAG_READ = 1;
export const VFIO_DMA_MAP_FLAG_WRITE = 2;
export const VFIO_DMA_MAP_FLAG_VADDR = 4;
export const vfio_iommu_type1_dma_map = struct('vfio_iommu_type1_dma_map', 32, {
  argsz: ['u32', 0],
  flags: ['u32', 4],
  vaddr: ['u64', 8],
  iova: ['u64', 16],
  size: ['u64', 24],
});

/** `struct vfio_bitmap` (linux/vfio.h, 5.8); `data` is a pointer in the caller's memory. */
export const vfio_bitmap = struct('vfio_bitmap', 24, { pgsize: ['u64', 0], size: ['u64', 8], data: ['u64', 16] });

/**
 * `struct vfio_iommu_type1_dma_unmap`, up to `data[]`, and its flags (linux/vfio.h, 3.6; the flags 5.8 and 5.12). With
 * GET_DIRTY_BITMAP, `data[]` is a {@link vfio_bitmap}.
 */
export const VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP = 1;
export const VFIO_DMA_UNMAP_FLAG_ALL = 2;
export const VFIO_DMA_UNMAP_FLAG_VADDR = 4;
export const vfio_iommu_type1_dma_unmap = struct('vfio_iommu_type1_dma_unmap', 24, {
  argsz: ['u32', 0],
  flags: ['u32', 4],
  iova: ['u64', 8],
  size: ['u64', 16],
});

/**
 * `struct vfio_iommu_type1_dirty_bitmap`, up to `data[]`, and its flags (linux/vfio.h, 5.8). With GET_BITMAP, `data[]` is a
 * {@link vfio_iommu_type1_dirty_bitmap_get}.
 */
export const VFIO_IOMMU_DIRTY_PAGES_FLAG_START = 1;
export const VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP = 2;
export const VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP = 4;
export const vfio_iommu_type1_dirty_bitmap = struct('vfio_iommu_type1_dirty_bitmap', 8, {
  argsz: ['u32', 0],
  flags: ['u32', 4],
});

/** `struct vfio_iommu_type1_dirty_bitmap_get`; the last three fields are its `struct vfio_bitmap bitmap`. */
export const vfio_iommu_type1_dirty_bitmap_get = struct('vfio_iommu_type1_dirty_bitmap_get', 40, {
  iova: ['u64', 0],
  size: ['u64', 8],
  bitmap_pgsize: ['u64', 16],
  bitmap_size: ['u64', 24],
  bitmap_data: ['u64', 32],
});
