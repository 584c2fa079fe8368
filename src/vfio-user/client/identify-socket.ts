import { VFU_PCI_DEV_MIGR_REGION_IDX } from '../../abi/vfio-user.ts';
import type { MigratableDevice } from '../../device/migratable.ts';
import { ShimError } from '../../error.ts';
import { findMigrationRegion } from '../../vfio/client/device-info.ts';
import { identify } from '../../vfio/client/identify.ts';
import { BufferedV1 } from './buffered-v1.ts';
import type { SocketPort } from './socket-port.ts';

/** The device behind a socket in the protocol that it speaks; `undefined` if it speaks none. */
export function identifySocket(port: SocketPort): MigratableDevice | undefined {
  try {
    const found = identify(port);
    if (found.protocol !== 'v1') return found;
    const { index } = findMigrationRegion(port) ?? { index: VFU_PCI_DEV_MIGR_REGION_IDX };
    return { protocol: 'v1', device: new BufferedV1(found.device, index, port) };
  } catch (error) {
    if (error instanceof ShimError && error.code === 'ERR_FEATURE_UNSUPPORTED') return undefined;
    throw error;
  }
}
