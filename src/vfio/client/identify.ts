import { VFIO_REGION_TYPE_MIGRATION_DRAFT } from '../../abi/vfio-drafts.ts';
import type { MigratableDevice } from '../../device/migratable.ts';
import { ShimError } from '../../error.ts';
import type { VfioPort } from '../port.ts';
import { deviceInfo, findMigrationRegion, migrationRegionAmong, regionsOf, type RegionInfo } from './device-info.ts';
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
  throw new ShimError('ERR_FEATURE_UNSUPPORTED', whyUnknown(regionsOf(port, deviceInfo(port).regions)), {
    errno: 'ENOTTY',
  });
}

/**
 * Why a driver is not known that has these regions. Those of the two drafts have the same type and subtype, and sizes that each driver
 * chooses. What a read would show is no help: NVIDIA's driver of 2019 lets nobody read device_state, a read of pending_bytes may begin
 * something, and how one of 2018 would answer is not known, as none was published.
 */
export function whyUnknown(regions: Iterable<RegionInfo>): string {
  return migrationRegionAmong(regions, VFIO_REGION_TYPE_MIGRATION_DRAFT) === undefined
    ? 'the driver does not support migration: it has neither VFIO_DEVICE_FEATURE_MIGRATION nor a migration region'
    : 'the driver is not served: it has the migration region of a draft before v1, and which one of November 2018 and February 2019 cannot be told';
}
