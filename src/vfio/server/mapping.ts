import { struct } from '../../abi/struct.ts';

export const MAX_MAPPINGS = 65535;
export const MAPPING_STRIDE = 64;

/** One mapping in memory that outlives this process. `container` is written last: 0 is a place that never held one. */
export const mapping = struct('mapping', MAPPING_STRIDE, {
  iova: ['u64', 0],
  size: ['u64', 8],
  container: ['u64', 16],
  /** The request that made it, or that removed it: one that is served again finds what it has done. */
  request: ['u64', 24],
  /** Where it is in the memory of whom. */
  vaddr: ['u64', 32],
  process: ['u64', 40],
  writable: ['u8', 48],
  /** Nobody has that memory at that address any more: VFIO_DMA_UNMAP_FLAG_VADDR. */
  lost: ['u8', 49],
  /** Devices may not read it. */
  write_only: ['u8', 50],
  file: ['u32', 52],
  /** Which program the process ran: it may have begun another since. Of a file, its inode. */
  program: ['u64', 56],
});
/** In `container`: the mapping has been removed, its place is free. */
export const REMOVED = 2n ** 63n;

/** Whose memory it is, by numbers that whoever maps has for a process, and for the program that it runs; 0 if nobody will look for it. */
export interface MemoryOwner {
  readonly process: bigint;
  readonly program: bigint;
}

/** The memory behind a mapping: at an address of a process. */
export interface MappedMemory extends MemoryOwner {
  readonly vaddr: bigint;
  readonly writable: boolean;
  /** Devices may read it, if nothing else is said. */
  readonly readable?: boolean;
  /**
   * One above the descriptor of that process whose file it is, if it is one's: then `vaddr` is an offset in that file, and `program` its
   * inode.
   */
  readonly file?: number;
}

export interface Mapping extends MappedMemory {
  readonly iova: bigint;
  readonly size: bigint;
  /** Its address was given up, and none was given since. */
  readonly lost: boolean;
}
