import type { MigratableDevice } from '../../device/migratable.ts';
import { ShimError } from '../../error.ts';
import type { VfioPort } from '../port.ts';
import { findMigrationRegion } from './device-info.ts';
import { PortV1Device } from './port-v1-device.ts';
import { migrationFlagsOf, PortV2Device } from './port-v2-device.ts';

/**
 * Finds out which protocol a driver speaks: v2 if it says so, else v1 if it has the region. `map`: as {@link PortV1Device}.
 */
export function identify(port: VfioPort, map = false): MigratableDevice {
  const flags = migrationFlagsOf(port);
  if (flags !== 0) return { protocol: 'v2', device: new PortV2Device(port, flags) };
  const region = findMigrationRegion(port);
  if (region !== undefined) return { protocol: 'v1', device: new PortV1Device(port, region, map) };
  throw new ShimError(
    'ERR_FEATURE_UNSUPPORTED',
    'the driver does not support migration: it has neither VFIO_DEVICE_FEATURE_MIGRATION nor a migration region',
    { errno: 'ENOTTY' },
  );
}
