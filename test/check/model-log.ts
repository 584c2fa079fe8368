import type { DirtyBitmap, DmaLog, IovaRange } from '../../src/vfio/dma-log.ts';
import { failure } from '../support/errno.ts';

/** What a log does in place of what it should. */
export interface LogMutation {
  start?(next: DmaLog, ranges: readonly IovaRange[], pageSize: bigint): bigint;
  stop?(next: DmaLog): void;
  report?(next: DmaLog, range: IovaRange, into: DirtyBitmap): void;
}

/** A log of a device that writes to nothing, with the checks of drivers/vfio/vfio_main.c 6.12, vfio_ioctl_device_feature_logging_start. */
class ModelLog implements DmaLog {
  #isBegun = false;

  start(ranges: readonly IovaRange[], pageSize: bigint): bigint {
    const isAligned = ranges.every(({ iova, length }) => (iova | length) % pageSize === 0n);
    const sorted = ranges.toSorted((one, other) => Number(one.iova - other.iova));
    const isApart = sorted.every(({ iova }, n) => n === 0 || iova >= endOf(sorted[n - 1]));
    if (this.#isBegun || ranges.length === 0 || !isAligned || !isApart) throw failure('EINVAL');
    this.#isBegun = true;
    return pageSize;
  }

  stop(): void {
    if (!this.#isBegun) throw failure('EINVAL');
    this.#isBegun = false;
  }

  readAndClear(): void {
    if (!this.#isBegun) throw failure('EINVAL');
  }
}

function endOf(range: IovaRange | undefined): bigint {
  return range === undefined ? 0n : range.iova + range.length;
}

/** Such a log with a habit of its own. */
export function modelLog(mutation: LogMutation = {}): DmaLog {
  const next: DmaLog = new ModelLog();
  const { start, stop, report } = mutation;
  return {
    start: (ranges, pageSize) => start?.(next, ranges, pageSize) ?? next.start(ranges, pageSize),
    stop: () => (stop === undefined ? next.stop() : stop(next)),
    readAndClear: (range, into) => (report === undefined ? next.readAndClear(range, into) : report(next, range, into)),
  };
}
