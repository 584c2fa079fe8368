import {
  vfio_device_feature,
  vfio_device_feature_dma_logging_control,
  vfio_device_feature_dma_logging_range,
  vfio_device_feature_dma_logging_report,
} from '../../abi/vfio-v2.ts';
import type { PointingArgument } from '../argument.ts';
import type { IovaRange } from '../dma-log.ts';
import { MAX_LOGGED_RANGES } from './device-log.ts';
import type { FeatureLog } from './feature-log.ts';
import { refuse } from './refuse.ts';

/*
 * The features DMA_LOGGING_START and DMA_LOGGING_REPORT of a device, once it is known that they are asked for, as
 * drivers/vfio/vfio_main.c of Linux 6.12 answers them (vfio_ioctl_device_feature_logging_start, ..._report). Ranges of no length pass there.
 */

const DATA = vfio_device_feature.size;
const ADDRESSES = 2n ** 64n;
const SMALLEST_PAGE = 4096n;

export function startLogging(argument: PointingArgument, log: FeatureLog): number {
  const struct = vfio_device_feature_dma_logging_control;
  const { page_size, num_ranges, ranges } = struct.decode(argument.read(DATA + struct.size), DATA);
  if (num_ranges === 0) throw refuse('EINVAL', 'DMA_LOGGING_START: no ranges');
  if (num_ranges > MAX_LOGGED_RANGES) throw refuse('E2BIG', `DMA_LOGGING_START: ${num_ranges} ranges`);
  const checked: IovaRange[] = [];
  for (let n = 0; n < num_ranges; n += 1) checked.push(rangeAt(argument, ranges, n, page_size, checked));
  const logsBy = log.start(checked, page_size);
  try {
    argument.write(struct.encode({ page_size: logsBy, num_ranges, ranges }), DATA);
  } catch (error) {
    log.stop();
    throw error;
  }
  return 0;
}

/** The n-th range, which must not overlap those before it. */
function rangeAt(
  argument: PointingArgument,
  ranges: bigint,
  n: number,
  pageSize: bigint,
  before: readonly IovaRange[],
): IovaRange {
  const struct = vfio_device_feature_dma_logging_range;
  const range = struct.decode(argument.readAt(ranges + BigInt(n * struct.size), struct.size));
  const { iova, length } = range;
  const text = `DMA_LOGGING_START: ${length} bytes at 0x${iova.toString(16)}`;
  // as the kernel's IS_ALIGNED, which takes a size that is no power of two for a mask too
  if (((iova | length) & BigInt.asUintN(64, pageSize - 1n)) !== 0n) {
    throw refuse('EINVAL', `${text} are not whole pages of ${pageSize}`);
  }
  if (iova + length >= ADDRESSES) throw refuse('EOVERFLOW', `${text} end behind all addresses`);
  if (before.some((other) => iova < other.iova + other.length && other.iova < iova + length)) {
    throw refuse('EINVAL', `${text} overlap another range`);
  }
  return range;
}

/** Sets the bits of pages that were written to in the user's bitmap. */
export function reportDirty(argument: PointingArgument, log: FeatureLog): number {
  const struct = vfio_device_feature_dma_logging_report;
  const { iova, length, page_size, bitmap } = struct.decode(argument.read(DATA + struct.size), DATA);
  if (page_size < SMALLEST_PAGE || (page_size & (page_size - 1n)) !== 0n) {
    throw refuse('EINVAL', `DMA_LOGGING_REPORT: pages of ${page_size} bytes`);
  }
  if (iova + length >= ADDRESSES) {
    throw refuse('EOVERFLOW', `DMA_LOGGING_REPORT: ${length} bytes at 0x${iova.toString(16)} end behind all addresses`);
  }
  log.report({ iova, length }, page_size, {
    read: (at, size) => argument.readAt(bitmap + BigInt(at), size),
    write: (at, bytes) => argument.writeAt(bitmap + BigInt(at), bytes),
  });
  return 0;
}
