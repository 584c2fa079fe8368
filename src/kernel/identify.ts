import type { MigratableDevice } from '../device/migratable.ts';
import { ShimError } from '../error.ts';
import { findMigrationRegion } from './device-info.ts';
import type { DeviceHandle } from './handle.ts';
import { KernelV1Device } from './v1-device.ts';
import { KernelV2Device, migrationFlagsOf, type KernelV2Options } from './v2-device.ts';

/** Finds out which protocol a driver speaks: v2 where it says so, else v1 where it has the region. */
export function kernelDevice(
  handle: DeviceHandle,
  options: KernelV2Options & { map?: boolean } = {},
): MigratableDevice {
  const flags = migrationFlagsOf(handle);
  if (flags !== 0) return { protocol: 'v2', device: new KernelV2Device(handle, flags, options) };
  const region = findMigrationRegion(handle);
  if (region !== undefined) {
    return { protocol: 'v1', device: new KernelV1Device(handle, region, options.map ?? false) };
  }
  throw new ShimError(
    'ERR_FEATURE_UNSUPPORTED',
    'the driver does not support migration: it has neither VFIO_DEVICE_FEATURE_MIGRATION nor a migration region',
    { errno: 'ENOTTY' },
  );
}
