import type { PageBits } from './page-bits.ts';
import type { PageSet } from './page-ranges.ts';

/** Bytes of a page of {@link PageBits}: what a type1 container counts by (`pgsize_bitmap` of its migration capability), as most do. */
export const DIRTY_PAGE = 4096n;

/** A container's own log of dirty pages (linux/vfio.h, 5.8: `VFIO_IOMMU_DIRTY_PAGES`). Throws a `ShimError` with the kernel's errno. */
export interface DirtyContainer {
  start(): void;
  /** Sets the bits of the pages of mappings, dirty or clean; those of holes are left as they are. The ends must not cut a mapping. */
  read(into: PageBits): void;
  /**
   * The mappings, which the kernel tells nobody otherwise. It calls all mapped pages of a container dirty if a real IOMMU is behind
   * it, and of one without, those that a driver has pinned: only these are found.
   */
  mapped(): PageSet;
}
