import {
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature_dma_logging_control,
  vfio_device_feature_dma_logging_range,
  vfio_device_feature_dma_logging_report,
} from '../../abi/vfio-v2.ts';
import { ShimError } from '../../error.ts';
import { bitmapSize, type DirtyBitmap, type DmaLog, type IovaRange } from '../dma-log.ts';
import type { Pointed, VfioPort } from '../port.ts';
import { deviceError } from './errors.ts';
import { askFeature, hasFeature } from './features.ts';

const OFFERED = [
  [VFIO_DEVICE_FEATURE_DMA_LOGGING_START, VFIO_DEVICE_FEATURE_SET],
  [VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, VFIO_DEVICE_FEATURE_SET],
  [VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, VFIO_DEVICE_FEATURE_GET],
] as const;

/**
 * The log that a driver offers, as PROBEs tell; `undefined` if it offers none. Whether the log can be read shows only while a
 * device logs: Linux 6.12 without CONFIG_IOMMUFD_DRIVER answers REPORT with EOPNOTSUPP (include/linux/iova_bitmap.h), and START with
 * success.
 */
export function dmaLogOf(port: VfioPort): DmaLog | undefined {
  return OFFERED.every(([index, operation]) => hasFeature(port, index, operation)) ? new PortDmaLog(port) : undefined;
}

/** The log of a device behind a port. drivers/vfio/vfio_main.c checks what is asked for: aligned, without overlap, not too many. */
class PortDmaLog implements DmaLog {
  readonly #port: VfioPort;

  constructor(port: VfioPort) {
    this.#port = port;
  }

  start(ranges: readonly IovaRange[], pageSize: bigint): bigint {
    const { size } = vfio_device_feature_dma_logging_range;
    const bytes = new Uint8Array(ranges.length * size);
    for (const [n, range] of ranges.entries()) vfio_device_feature_dma_logging_range.encode(range, bytes, n * size);
    const control = vfio_device_feature_dma_logging_control;
    const data = control.encode({ page_size: pageSize, num_ranges: ranges.length });
    const flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
    return control.decode(this.#ask('START', flags, data, { at: control.fields.ranges[1], bytes })).page_size;
  }

  stop(): void {
    this.#ask('STOP', VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, new Uint8Array(0));
  }

  readAndClear(range: IovaRange, { pageSize, bits }: DirtyBitmap): void {
    checkRoom(range, pageSize, bits);
    const report = vfio_device_feature_dma_logging_report;
    const data = report.encode({ ...range, page_size: pageSize });
    const flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT;
    this.#ask('REPORT', flags, data, { at: report.fields.bitmap[1], bytes: bits });
  }

  #ask(what: string, flags: number, ...rest: [data: Uint8Array, pointed?: Pointed]): Uint8Array {
    try {
      return askFeature(this.#port, `DMA_LOGGING_${what}`, flags, ...rest);
    } catch (error) {
      throw deviceError(`DMA_LOGGING_${what}`, error);
    }
  }
}

/** A driver is not told how long a bitmap is: it writes as much as the range takes. */
function checkRoom(range: IovaRange, pageSize: bigint, bits: Uint8Array): void {
  const isPowerOfTwo = pageSize > 0n && (pageSize & (pageSize - 1n)) === 0n;
  if (isPowerOfTwo && range.length > 0n && bits.length >= bitmapSize(range, pageSize)) return;
  throw new ShimError(
    'ERR_ARGUMENT',
    `DMA log: a bitmap of ${bits.length} bytes for ${range.length} bytes in pages of ${pageSize}`,
    { errno: 'EINVAL' },
  );
}
