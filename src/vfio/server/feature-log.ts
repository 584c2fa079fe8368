import { bitmapSize, type DmaLog, type IovaRange } from '../dma-log.ts';

/** The user's bitmap, which begins with a range: what is left alone there is not copied. `at` is the number of a byte. */
export interface BitmapMemory {
  read(at: number, size: number): Uint8Array;
  write(at: number, bytes: Uint8Array): void;
}

/** A log of DMA as the features DMA_LOGGING_* ask for it, once their arguments are checked. */
export interface FeatureLog {
  start(ranges: readonly IovaRange[], pageSize: bigint): bigint;
  stop(): void;
  /** Sets the bits of pages that were written to since this was last asked, in a bitmap with a bit for each `pageSize` bytes. */
  report(range: IovaRange, pageSize: bigint, memory: BitmapMemory): void;
}

/** The same of any log. */
export function featureLog(log: DmaLog): FeatureLog {
  return {
    start: (ranges, pageSize) => log.start(ranges, pageSize),
    stop: () => log.stop(),
    report(range, pageSize, memory) {
      const bits = memory.read(0, bitmapSize(range, pageSize));
      log.readAndClear(range, { pageSize, bits });
      memory.write(0, bits);
    },
  };
}
