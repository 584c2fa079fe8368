import { _IO } from './ioctl.ts';
import { struct } from './struct.ts';
import { VFIO_TYPE } from './vfio-ioctl.ts';

/** Ioctl numbers of /dev/iommu (linux/iommufd.h, 6.2; HWPT_ALLOC and GET_HW_INFO 6.6, dirty tracking 6.7). */
export const IOMMUFD_CMD_BASE = 0x80;
export const IOMMU_DESTROY = _IO(VFIO_TYPE, IOMMUFD_CMD_BASE + 0);
export const IOMMU_IOAS_ALLOC = _IO(VFIO_TYPE, IOMMUFD_CMD_BASE + 1);
export const IOMMU_IOAS_ALLOW_IOVAS = _IO(VFIO_TYPE, IOMMUFD_CMD_BASE + 2);
export const IOMMU_IOAS_COPY = _IO(VFIO_TYPE, IOMMUFD_CMD_BASE + 3);
export const IOMMU_IOAS_IOVA_RANGES = _IO(VFIO_TYPE, IOMMUFD_CMD_BASE + 4);
export const IOMMU_IOAS_MAP = _IO(VFIO_TYPE, IOMMUFD_CMD_BASE + 5);
export const IOMMU_IOAS_UNMAP = _IO(VFIO_TYPE, IOMMUFD_CMD_BASE + 6);
export const IOMMU_OPTION = _IO(VFIO_TYPE, IOMMUFD_CMD_BASE + 7);
export const IOMMU_VFIO_IOAS = _IO(VFIO_TYPE, IOMMUFD_CMD_BASE + 8);
export const IOMMU_HWPT_ALLOC = _IO(VFIO_TYPE, IOMMUFD_CMD_BASE + 9);
export const IOMMU_GET_HW_INFO = _IO(VFIO_TYPE, IOMMUFD_CMD_BASE + 10);
export const IOMMU_HWPT_SET_DIRTY_TRACKING = _IO(VFIO_TYPE, IOMMUFD_CMD_BASE + 11);
export const IOMMU_HWPT_GET_DIRTY_BITMAP = _IO(VFIO_TYPE, IOMMUFD_CMD_BASE + 12);
/** Linux 6.8, and 6.11. */
export const IOMMU_HWPT_INVALIDATE = _IO(VFIO_TYPE, IOMMUFD_CMD_BASE + 13);
export const IOMMU_FAULT_QUEUE_ALLOC = _IO(VFIO_TYPE, IOMMUFD_CMD_BASE + 14);
/** Linux 6.13. */
export const IOMMU_IOAS_MAP_FILE = _IO(VFIO_TYPE, IOMMUFD_CMD_BASE + 15);

export const iommu_destroy = struct('iommu_destroy', 8, { size: ['u32', 0], id: ['u32', 4] });

export const iommu_ioas_alloc = struct('iommu_ioas_alloc', 12, {
  size: ['u32', 0],
  flags: ['u32', 4],
  out_ioas_id: ['u32', 8],
});

/** An interval of I/O virtual addresses: `last` is its last. */
export const iommu_iova_range = struct('iommu_iova_range', 16, { start: ['u64', 0], last: ['u64', 8] });

export const iommu_ioas_iova_ranges = struct('iommu_ioas_iova_ranges', 32, {
  size: ['u32', 0],
  ioas_id: ['u32', 4],
  num_iovas: ['u32', 8],
  reserved: ['u32', 12],
  allowed_iovas: ['u64', 16],
  out_iova_alignment: ['u64', 24],
});

export const iommu_ioas_allow_iovas = struct('iommu_ioas_allow_iovas', 24, {
  size: ['u32', 0],
  ioas_id: ['u32', 4],
  num_iovas: ['u32', 8],
  reserved: ['u32', 12],
  allowed_iovas: ['u64', 16],
});

/** `enum iommufd_ioas_map_flags`, of MAP, MAP_FILE and COPY. */
export const IOMMU_IOAS_MAP_FIXED_IOVA = 1;
export const IOMMU_IOAS_MAP_WRITEABLE = 2;
export const IOMMU_IOAS_MAP_READABLE = 4;

export const iommu_ioas_map = struct('iommu_ioas_map', 40, {
  size: ['u32', 0],
  flags: ['u32', 4],
  ioas_id: ['u32', 8],
  reserved: ['u32', 12],
  user_va: ['u64', 16],
  length: ['u64', 24],
  iova: ['u64', 32],
});

export const iommu_ioas_map_file = struct('iommu_ioas_map_file', 40, {
  size: ['u32', 0],
  flags: ['u32', 4],
  ioas_id: ['u32', 8],
  fd: ['s32', 12],
  start: ['u64', 16],
  length: ['u64', 24],
  iova: ['u64', 32],
});

export const iommu_ioas_copy = struct('iommu_ioas_copy', 40, {
  size: ['u32', 0],
  flags: ['u32', 4],
  dst_ioas_id: ['u32', 8],
  src_ioas_id: ['u32', 12],
  length: ['u64', 16],
  dst_iova: ['u64', 24],
  src_iova: ['u64', 32],
});

export const iommu_ioas_unmap = struct('iommu_ioas_unmap', 24, {
  size: ['u32', 0],
  ioas_id: ['u32', 4],
  iova: ['u64', 8],
  length: ['u64', 16],
});

/** `enum iommufd_option` and `enum iommufd_option_ops`. */
export const IOMMU_OPTION_RLIMIT_MODE = 0;
export const IOMMU_OPTION_HUGE_PAGES = 1;
export const IOMMU_OPTION_OP_SET = 0;
export const IOMMU_OPTION_OP_GET = 1;
export const iommu_option = struct('iommu_option', 24, {
  size: ['u32', 0],
  option_id: ['u32', 4],
  op: ['u16', 8],
  reserved: ['u16', 10],
  object_id: ['u32', 12],
  val64: ['u64', 16],
});

/** `enum iommufd_vfio_ioas_op`. */
export const IOMMU_VFIO_IOAS_GET = 0;
export const IOMMU_VFIO_IOAS_SET = 1;
export const IOMMU_VFIO_IOAS_CLEAR = 2;
export const iommu_vfio_ioas = struct('iommu_vfio_ioas', 12, {
  size: ['u32', 0],
  ioas_id: ['u32', 4],
  op: ['u16', 8],
  reserved: ['u16', 10],
});

/** `enum iommufd_hwpt_alloc_flags`, the one that the emulated IOMMU has. */
export const IOMMU_HWPT_ALLOC_DIRTY_TRACKING = 2;
export const IOMMU_HWPT_DATA_NONE = 0;
/** As of Linux 6.11: before, it ended at 40. */
export const iommu_hwpt_alloc = struct('iommu_hwpt_alloc', 48, {
  size: ['u32', 0],
  flags: ['u32', 4],
  dev_id: ['u32', 8],
  pt_id: ['u32', 12],
  out_hwpt_id: ['u32', 16],
  reserved: ['u32', 20],
  data_type: ['u32', 24],
  data_len: ['u32', 28],
  data_uptr: ['u64', 32],
  fault_id: ['u32', 40],
  reserved2: ['u32', 44],
});

export const IOMMU_HW_INFO_TYPE_NONE = 0;
/** `enum iommufd_hw_capabilities`. */
export const IOMMU_HW_CAP_DIRTY_TRACKING = 1n;
export const iommu_hw_info = struct('iommu_hw_info', 40, {
  size: ['u32', 0],
  flags: ['u32', 4],
  dev_id: ['u32', 8],
  data_len: ['u32', 12],
  data_uptr: ['u64', 16],
  out_data_type: ['u32', 24],
  /** As of Linux 6.15: before, it was reserved as the three bytes behind it. */
  out_max_pasid_log2: ['u8', 28],
  reserved0: ['u8', 29],
  reserved1: ['u8', 30],
  reserved2: ['u8', 31],
  out_capabilities: ['u64', 32],
});

export const IOMMU_HWPT_DIRTY_TRACKING_ENABLE = 1;
export const iommu_hwpt_set_dirty_tracking = struct('iommu_hwpt_set_dirty_tracking', 16, {
  size: ['u32', 0],
  flags: ['u32', 4],
  hwpt_id: ['u32', 8],
  reserved: ['u32', 12],
});

export const IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR = 1;
export const iommu_hwpt_get_dirty_bitmap = struct('iommu_hwpt_get_dirty_bitmap', 48, {
  size: ['u32', 0],
  hwpt_id: ['u32', 4],
  flags: ['u32', 8],
  reserved: ['u32', 12],
  iova: ['u64', 16],
  length: ['u64', 24],
  page_size: ['u64', 32],
  data: ['u64', 40],
});
