import { ShimError } from '../error.ts';
import { dmaLogOf } from '../vfio/client/port-dma-log.ts';
import { cleanBitmap, type DmaLog } from '../vfio/dma-log.ts';
import type { VfioPort } from '../vfio/port.ts';

/** Whether a device's DMA is logged: the driver offers no log; it has one that can be read; or it refuses a request. */
export type DmaLogging = 'no' | 'works' | `offered, ${Request} refused (${string})`;

type Request = 'START' | 'REPORT' | 'STOP';

const PAGE_SIZE = 4096n;
/** As a VMM would have it: drivers have a least size (drivers/vfio/pci/mlx5/cmd.c, Linux 6.12: mlx5vf_create_tracker). */
const RANGE = { iova: 0n, length: 4n << 30n };
/** The begin of that, as much as a driver reads at once (drivers/vfio/pci/pds/dirty.c, Linux 6.12: a word of 64 pages). */
const PART = { iova: 0n, length: 64n * PAGE_SIZE };

/**
 * Tries the log of a device that nobody else has open: begins it, reads a part and ends it. PROBE does not tell: Linux 6.12 without
 * CONFIG_IOMMUFD_DRIVER offers a log, begins it, and refuses each REPORT. Neither the device's state nor memory is touched; a log that
 * does not end by STOP ends when the device is closed.
 */
export function tryDmaLog(port: VfioPort): DmaLogging {
  const log = dmaLogOf(port);
  return log === undefined ? 'no' : tryLog(log);
}

function tryLog(log: DmaLog): DmaLogging {
  const refusal = refusalOf('START', () => log.start([RANGE], PAGE_SIZE));
  if (refusal !== undefined) return refusal;
  const unread = refusalOf('REPORT', () => log.readAndClear(PART, cleanBitmap(PART, PAGE_SIZE)));
  const unended = refusalOf('STOP', () => log.stop());
  return unread ?? unended ?? 'works';
}

function refusalOf(request: Request, ask: () => void): DmaLogging | undefined {
  try {
    ask();
    return undefined;
  } catch (error) {
    if (!(error instanceof ShimError) || error.errno === undefined) throw error;
    return `offered, ${request} refused (${error.errno})`;
  }
}
