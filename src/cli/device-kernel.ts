import { ShimError } from '../error.ts';
import { deviceInfo, regionsOf } from '../vfio/client/device-info.ts';
import { identify } from '../vfio/client/identify.ts';
import { openKernelDevice, type OpenedDevice } from '../kernel/open.ts';
import { dmaLogOf } from '../vfio/client/port-dma-log.ts';
import { pciId } from '../vfio/client/pci-id.ts';
import type { MigratableDevice } from '../device/migratable.ts';
import { tryDmaLog } from './dma-logging.ts';
import type { DeviceFacts, Opened } from './opened.ts';
import { sysfsFacts } from '../host/sysfs-facts.ts';

/** A device behind /dev/vfio. */
export function openKernel(path: string, look: boolean): Opened {
  const device = openKernelDevice(path);
  try {
    return {
      name: device.name,
      migratable: migratable(device, !look),
      facts: () => kernelFacts(device),
      tryDmaLog: () => tryDmaLog(device.port),
      dmaLog: () => dmaLogOf(device.port),
      close: () => device.close(),
    };
  } catch (error) {
    device.close();
    throw error;
  }
}

function migratable(device: OpenedDevice, map: boolean): MigratableDevice | undefined {
  try {
    return identify(device.port, map);
  } catch (error) {
    if (error instanceof ShimError && error.code === 'ERR_FEATURE_UNSUPPORTED') return undefined;
    throw error;
  }
}

function kernelFacts(device: OpenedDevice): DeviceFacts {
  const { flags, regions: count, irqs } = deviceInfo(device.port);
  const regions = [...regionsOf(device.port, count)].filter(({ size }) => size > 0);
  const sysfs = sysfsFacts(device.name);
  const { bus, driver, mdevType } = sysfs;
  return {
    driver,
    sysfs,
    flags,
    regions,
    irqs,
    identity: {
      ...(bus !== undefined && mdevType === undefined && { bus }),
      ...pciId(device.port, regions),
      ...(driver !== undefined && { driver }),
      ...(mdevType !== undefined && { mdevType }),
    },
  };
}
