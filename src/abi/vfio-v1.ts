import { struct } from './struct.ts';

/** `device_state` bits of `struct vfio_device_migration_info` (linux/vfio.h, 5.8 to 5.17; later headers say `_V1_`). */
export const VFIO_DEVICE_STATE_V1_STOP = 0;
export const VFIO_DEVICE_STATE_V1_RUNNING = 1;
export const VFIO_DEVICE_STATE_V1_SAVING = 2;
export const VFIO_DEVICE_STATE_V1_RESUMING = 4;
export const VFIO_DEVICE_STATE_V1_MASK = 7;
/** `VFIO_DEVICE_STATE_SET_ERROR`: SAVING | RESUMING. */
export const VFIO_DEVICE_STATE_V1_ERROR = 6;

export const VFIO_REGION_TYPE_MIGRATION = 3;
export const VFIO_REGION_SUBTYPE_MIGRATION = 1;

/** `struct vfio_device_migration_info` (linux/vfio.h, 5.8 to 5.17): the first 32 bytes of the migration region. */
export const vfio_device_migration_info = struct('vfio_device_migration_info', 32, {
  device_state: ['u32', 0],
  reserved: ['u32', 4],
  pending_bytes: ['u64', 8],
  data_offset: ['u64', 16],
  data_size: ['u64', 24],
});
