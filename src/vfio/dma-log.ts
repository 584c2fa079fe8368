/** A range of I/O virtual addresses, in bytes (`struct vfio_device_feature_dma_logging_range`). */
export interface IovaRange {
  readonly iova: bigint;
  readonly length: bigint;
}

/** Which pages of a range were written to: bit n of little-endian u64s is the n-th page, and set if it was. */
export interface DirtyBitmap {
  /** Bytes that one bit stands for: a power of two. It need not be the page size of the log, which a driver converts from. */
  readonly pageSize: bigint;
  readonly bits: Uint8Array;
}

/**
 * A driver's log of the memory that its device writes to by DMA (linux/vfio.h, 6.1). It is a facet of a device beside its migration, as
 * the kernel keeps `log_ops` beside `mig_ops` (struct vfio_device): a device may have either, both or none.
 */
export interface DmaLog {
  /**
   * Begins to log writes to these ranges, which must not overlap. `pageSize` is what the caller wishes for; returns what the device
   * logs by.
   */
  start(ranges: readonly IovaRange[], pageSize: bigint): bigint;
  /** Ends the log, and forgets what it has noted. */
  stop(): void;
  /**
   * Sets the bits of pages that were written to since this was last asked, and clears none. If it throws, the log is lost: all pages
   * may be dirty.
   */
  readAndClear(range: IovaRange, into: DirtyBitmap): void;
}

/** How many bytes the bitmap of a range has: whole u64s. */
export function bitmapSize({ length }: IovaRange, pageSize: bigint): number {
  const pages = (length + pageSize - 1n) / pageSize;
  return Number((pages + 63n) / 64n) * 8;
}

/** A bitmap of a range, with all of it clean. */
export function cleanBitmap(range: IovaRange, pageSize: bigint): DirtyBitmap {
  return { pageSize, bits: new Uint8Array(bitmapSize(range, pageSize)) };
}
