import type { ShimError } from '../../error.ts';
import type { DmaMappings } from './dma-mappings.ts';
import type { MemoryOwner } from './mapping.ts';
import { refuse } from './refuse.ts';
import type { WindowLog } from './window-log.ts';

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
  /** A range that wraps is `EOVERFLOW`, as of Linux 7.1, and not `EINVAL`, as of 6.12. */
  readonly tellsOverflow?: boolean;
  hasGroup(container: ContainerState): boolean;
  /** The process that makes the request. */
  mapper(): MemoryOwner;
  /** What each device in the container that does DMA has written to. */
  logs(container: ContainerState): readonly WindowLog[];
}

/** The last I/O virtual address that the emulated IOMMU translates. */
export const LAST_IOVA = 0xffff_ffff_ffffn;
const U64 = 2n ** 64n;

/** Whether the last of `size` bytes, at least one, is not a u64. */
export function wraps(from: bigint, size: bigint): boolean {
  return from + size > U64;
}

/** The error for a range that wraps. */
export function wrapped({ tellsOverflow = false }: ContainerHost, why: string): ShimError {
  return refuse(tellsOverflow ? 'EOVERFLOW' : 'EINVAL', why);
}
