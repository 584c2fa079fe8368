import { struct } from './struct.ts';

/** `enum vfio_device_mig_state` (linux/vfio.h, 5.18; the PRE_COPY states 6.2). Not to be confused with v1's bits. */
export const VFIO_DEVICE_STATE = {
  ERROR: 0,
  STOP: 1,
  RUNNING: 2,
  STOP_COPY: 3,
  RESUMING: 4,
  RUNNING_P2P: 5,
  PRE_COPY: 6,
  PRE_COPY_P2P: 7,
} as const;

/** `VFIO_MIGRATION_*` (struct vfio_device_feature_migration.flags). */
export const VFIO_MIGRATION_STOP_COPY = 1;
export const VFIO_MIGRATION_P2P = 2;
export const VFIO_MIGRATION_PRE_COPY = 4;

/** `struct vfio_device_feature`, up to `data[]` (linux/vfio.h, 5.7). `flags` is a feature's index and what to do with it. */
export const vfio_device_feature = struct('vfio_device_feature', 8, { argsz: ['u32', 0], flags: ['u32', 4] });
export const VFIO_DEVICE_FEATURE_MASK = 0xffff;
export const VFIO_DEVICE_FEATURE_GET = 0x1_0000;
export const VFIO_DEVICE_FEATURE_SET = 0x2_0000;
export const VFIO_DEVICE_FEATURE_PROBE = 0x4_0000;

/** Feature indices (linux/vfio.h: 0 5.7; 1 and 2 5.18; 3 to 8 6.1; 9 6.2; the rest later). */
export const VFIO_DEVICE_FEATURE_PCI_VF_TOKEN = 0;
export const VFIO_DEVICE_FEATURE_MIGRATION = 1;
export const VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE = 2;
export const VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY = 3;
export const VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP = 4;
export const VFIO_DEVICE_FEATURE_LOW_POWER_EXIT = 5;
export const VFIO_DEVICE_FEATURE_DMA_LOGGING_START = 6;
export const VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP = 7;
export const VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT = 8;
export const VFIO_DEVICE_FEATURE_MIG_DATA_SIZE = 9;
export const VFIO_DEVICE_FEATURE_BUS_MASTER = 10;
export const VFIO_DEVICE_FEATURE_DMA_BUF = 11;
/** SET without data: `vfio_precopy_info.flags` is then valid on return. Linux 7.x. */
export const VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 = 12;

/** `struct vfio_device_feature_migration` (linux/vfio.h, 5.18): `VFIO_MIGRATION_*`. */
export const vfio_device_feature_migration = struct('vfio_device_feature_migration', 8, { flags: ['u64', 0] });

/** `struct vfio_device_feature_mig_state` (linux/vfio.h, 5.18); `data_fd` is -1 if no session begins. */
export const vfio_device_feature_mig_state = struct('vfio_device_feature_mig_state', 8, {
  device_state: ['u32', 0],
  data_fd: ['s32', 4],
});

/** `struct vfio_device_feature_mig_data_size` (linux/vfio.h, 6.2). */
export const vfio_device_feature_mig_data_size = struct('vfio_device_feature_mig_data_size', 8, {
  stop_copy_length: ['u64', 0],
});

/** `struct vfio_precopy_info` of `VFIO_MIG_GET_PRECOPY_INFO` (linux/vfio.h, 6.2) and its flag (7.x). */
export const VFIO_PRECOPY_INFO_REINIT = 1;
export const vfio_precopy_info = struct('vfio_precopy_info', 24, {
  argsz: ['u32', 0],
  flags: ['u32', 4],
  initial_bytes: ['u64', 8],
  dirty_bytes: ['u64', 16],
});

/** `struct vfio_device_feature_dma_logging_control` (linux/vfio.h, 6.1); `ranges` points to `num_ranges` ranges. */
export const vfio_device_feature_dma_logging_control = struct('vfio_device_feature_dma_logging_control', 24, {
  page_size: ['u64', 0],
  num_ranges: ['u32', 8],
  __reserved: ['u32', 12],
  ranges: ['u64', 16],
});
export const vfio_device_feature_dma_logging_range = struct('vfio_device_feature_dma_logging_range', 16, {
  iova: ['u64', 0],
  length: ['u64', 8],
});

/** `struct vfio_device_feature_dma_logging_report` (linux/vfio.h, 6.1); `bitmap` points to u64s, one bit per page. */
export const vfio_device_feature_dma_logging_report = struct('vfio_device_feature_dma_logging_report', 32, {
  iova: ['u64', 0],
  length: ['u64', 8],
  page_size: ['u64', 16],
  bitmap: ['u64', 24],
});
