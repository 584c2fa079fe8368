import { stateName, type MigratableDevice } from '../../device/migratable.ts';
import { ShimError } from '../../error.ts';

/** The states in which a device may begin DMA, of all protocols, by their names. */
export const INITIATING: ReadonlySet<string> = new Set(['RUNNING', 'PRE_COPY', 'MIGRATION_SETUP', 'MIGRATION_PRECOPY']);

/** Those in which it takes the DMA of other devices. Only v2 has some in which it begins none (enum vfio_device_mig_state of Linux 6.12). */
export const ACCEPTING: ReadonlySet<string> = new Set([...INITIATING, 'RUNNING_P2P', 'PRE_COPY_P2P']);

/** The name of a device's state; `undefined` if the device does not say, or not yet. */
export function stateOf(device: MigratableDevice): string | undefined {
  try {
    return stateName(device);
  } catch (error) {
    if (error instanceof ShimError) return undefined;
    throw error;
  }
}
