import type { PageBits } from './page-bits.ts';
import type { PageSet } from './page-ranges.ts';

/** A container's own log of dirty pages (linux/vfio.h, 5.8: `VFIO_IOMMU_DIRTY_PAGES`). Throws a `ShimError` with the kernel's errno. */
export interface DirtyContainer {
  /**
   * Bytes of a page of {@link PageBits}: the smallest that a type1 container maps, which is a page of the host (drivers/vfio/vfio_iommu_type1.c,
   * Linux 6.12: vfio_update_pgsize_bitmap, and vfio_iommu_type1_dirty_pages, which takes no other). A power of two.
   */
  readonly pageSize: bigint;
  start(): void;
  /** Sets the bits of the pages of mappings, dirty or clean; those of holes are left as they are. The ends must not cut a mapping. */
  read(into: PageBits): void;
  /**
   * The mappings, which the kernel tells nobody otherwise. It calls all mapped pages of a container dirty if a real IOMMU is behind
   * it, and of one without, those that a driver has pinned: only these are found.
   */
  mapped(): PageSet;
}
