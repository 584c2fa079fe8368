import { struct } from './struct.ts';

/*
 * The migration region as it was proposed before Linux had one. No header of Linux ever had these: the names are those of the patches,
 * with the year behind them if another generation has the same name.
 */

/** The region's type in the patches of November 2018 and February 2019; its subtype is v1's. */
export const VFIO_REGION_TYPE_MIGRATION_DRAFT = 0x4000_0000; // 1 << 30

/** `device_state` of "VFIO KABI for migration interface" (Kirti Wankhede, November 2018), without the prefix. */
export const VFIO_DEVICE_STATE_2018 = {
  NONE: 0,
  RUNNING: 1,
  MIGRATION_SETUP: 2,
  MIGRATION_PRECOPY: 3,
  MIGRATION_STOPNCOPY: 4,
  MIGRATION_SAVE_COMPLETED: 5,
  MIGRATION_RESUME: 6,
  MIGRATION_RESUME_COMPLETED: 7,
  MIGRATION_FAILED: 8,
  MIGRATION_CANCELLED: 9,
} as const;

/**
 * `struct vfio_device_migration_info` of the same patch, packed: all that has 8 bytes lies at 4 modulo 8. Fields of the nested structs
 * `pending`, `data` and `dirty_pfns` have their struct's name in front.
 */
export const vfio_device_migration_info_2018 = struct('vfio_device_migration_info', 76, {
  device_state: ['u32', 0],
  pending_precopy_only: ['u64', 4],
  pending_compatible: ['u64', 12],
  pending_postcopy_only: ['u64', 20],
  pending_threshold_size: ['u64', 28],
  data_offset: ['u64', 36],
  data_size: ['u64', 44],
  dirty_pfns_start_addr: ['u64', 52],
  dirty_pfns_total: ['u64', 60],
  dirty_pfns_copied: ['u64', 68],
});

/** `device_state` bits of "VFIO KABI for migration interface", version 3 (Kirti Wankhede, February 2019). Neither bit: stopped, or resuming. */
export const VFIO_DEVICE_STATE_2019_RUNNING = 1;
export const VFIO_DEVICE_STATE_2019_SAVING = 2;

/** `struct vfio_device_migration_info` of the same. Versions 4 to 9, until October 2019, have it too, with a bit RESUMING. */
export const vfio_device_migration_info_2019 = struct('vfio_device_migration_info', 64, {
  device_state: ['u32', 0],
  reserved: ['u32', 4],
  pending_bytes: ['u64', 8],
  data_offset: ['u64', 16],
  data_size: ['u64', 24],
  start_pfn: ['u64', 32],
  page_size: ['u64', 40],
  total_pfns: ['u64', 48],
  copied_pfns: ['u64', 56],
});
