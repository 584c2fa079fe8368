import type { RegionInfo } from '../vfio/client/device-info.ts';
import type { MigratableDevice } from '../device/migratable.ts';
import type { ByteStore } from '../sim/byte-store.ts';
import type { Identity } from '../state-file/identity.ts';
import type { DmaLog } from '../vfio/dma-log.ts';
import type { DmaLogging } from './dma-logging.ts';
import type { SysfsFacts } from '../host/sysfs-facts.ts';

/** What there is to know about a device without changing its state. */
export interface DeviceFacts {
  /** What carries requests to it, if it is not the kernel. */
  readonly carrier?: 'vfio-user';
  /** The driver's name, if it is known. */
  readonly driver: string | undefined;
  readonly sysfs: SysfsFacts;
  /** `VFIO_DEVICE_FLAGS_*` */
  readonly flags: number;
  readonly regions: readonly RegionInfo[];
  readonly irqs: number;
  /** What its state file says of it, sizes apart. */
  readonly identity: Identity;
}

/** How a kind of device is opened. */
export interface Opened {
  readonly name: string;
  readonly migratable: MigratableDevice | undefined;
  readonly guestMemory?: ByteStore;
  facts(): DeviceFacts;
  /** Whether its driver logs which memory the device writes to (features DMA_LOGGING_*), by trying. */
  tryDmaLog(): DmaLogging;
  /** That log, if there is one to be asked. */
  dmaLog?(): DmaLog | undefined;
  close(): void;
}
