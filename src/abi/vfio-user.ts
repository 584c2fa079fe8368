import { struct } from './struct.ts';

/*
 * The vfio-user protocol: VFIO over a UNIX socket (libvfio-user: include/vfio-user.h and docs/vfio-user.rst; efd091b, and 1569a37 for what
 * went in September 2023). The bodies of most messages are the structs of linux/vfio.h, without pointers: what one of those points
 * to follows behind it.
 */

/** `enum vfio_user_command`. DIRTY_PAGES is v1's and went with it; the last three came with v2. */
export const VFIO_USER_VERSION = 1;
export const VFIO_USER_DMA_MAP = 2;
export const VFIO_USER_DMA_UNMAP = 3;
export const VFIO_USER_DEVICE_GET_INFO = 4;
export const VFIO_USER_DEVICE_GET_REGION_INFO = 5;
export const VFIO_USER_DEVICE_GET_REGION_IO_FDS = 6;
export const VFIO_USER_DEVICE_GET_IRQ_INFO = 7;
export const VFIO_USER_DEVICE_SET_IRQS = 8;
export const VFIO_USER_REGION_READ = 9;
export const VFIO_USER_REGION_WRITE = 10;
export const VFIO_USER_DMA_READ = 11;
export const VFIO_USER_DMA_WRITE = 12;
export const VFIO_USER_DEVICE_RESET = 13;
export const VFIO_USER_DIRTY_PAGES = 14;
export const VFIO_USER_REGION_WRITE_MULTI = 15;
export const VFIO_USER_DEVICE_FEATURE = 16;
export const VFIO_USER_MIG_DATA_READ = 17;
export const VFIO_USER_MIG_DATA_WRITE = 18;

/** `struct vfio_user_header` and its flags. */
export const VFIO_USER_F_TYPE_MASK = 0xf;
export const VFIO_USER_F_TYPE_COMMAND = 0;
export const VFIO_USER_F_TYPE_REPLY = 1;
export const VFIO_USER_F_NO_REPLY = 0x10;
export const VFIO_USER_F_ERROR = 0x20;
export const vfio_user_header = struct('vfio_user_header', 16, {
  msg_id: ['u16', 0],
  cmd: ['u16', 2],
  msg_size: ['u32', 4],
  flags: ['u32', 8],
  error_no: ['u32', 12],
});

/** `struct vfio_user_version`, up to `data[]`: JSON, and a zero behind it. */
export const vfio_user_version = struct('vfio_user_version', 4, { major: ['u16', 0], minor: ['u16', 2] });
/** Used if neither side says `max_data_xfer_size`. */
export const VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE = 1024 * 1024;

/** `struct vfio_user_device_info`: `struct vfio_device_info` without capabilities. */
export const vfio_user_device_info = struct('vfio_user_device_info', 16, {
  argsz: ['u32', 0],
  flags: ['u32', 4],
  num_regions: ['u32', 8],
  num_irqs: ['u32', 12],
});

/** `struct vfio_user_dma_map`: as `struct vfio_iommu_type1_dma_map`, with an offset in the file in the place of `vaddr`. */
export const VFIO_USER_F_DMA_REGION_MMAP = 4;
export const VFIO_USER_F_DMA_REGION_FILE_IO = 8;
export const vfio_user_dma_map = struct('vfio_user_dma_map', 32, {
  argsz: ['u32', 0],
  flags: ['u32', 4],
  offset: ['u64', 8],
  addr: ['u64', 16],
  size: ['u64', 24],
});

/** `struct vfio_user_dma_unmap`, up to `bitmap[]`, which is a {@link vfio_user_bitmap} if a dirty bitmap is asked for. */
export const vfio_user_dma_unmap = struct('vfio_user_dma_unmap', 24, {
  argsz: ['u32', 0],
  flags: ['u32', 4],
  addr: ['u64', 8],
  size: ['u64', 16],
});

/** `struct vfio_user_bitmap`, up to `data[]`. */
export const vfio_user_bitmap = struct('vfio_user_bitmap', 16, { pgsize: ['u64', 0], size: ['u64', 8] });

/** `struct vfio_user_dirty_pages`, of v1, and the `struct vfio_user_bitmap_range` behind it, up to its bitmap's data. */
export const vfio_user_dirty_pages = struct('vfio_user_dirty_pages', 8, { argsz: ['u32', 0], flags: ['u32', 4] });
export const vfio_user_bitmap_range = struct('vfio_user_bitmap_range', 32, {
  iova: ['u64', 0],
  size: ['u64', 8],
  bitmap_pgsize: ['u64', 16],
  bitmap_size: ['u64', 24],
});

/** `struct vfio_user_region_access`, up to `data[]`. */
export const vfio_user_region_access = struct('vfio_user_region_access', 16, {
  offset: ['u64', 0],
  region: ['u32', 8],
  count: ['u32', 12],
});

/**
 * REGION_WRITE_MULTI (QEMU 10.1: VFIOUserWRMulti, hw/vfio-user/protocol.h): a number of writes, and behind it each with 8 bytes of data,
 * of which `count` are written.
 */
export const vfio_user_write_multi = struct('vfio_user_write_multi', 8, { wr_cnt: ['u64', 0] });
export const vfio_user_write_one = struct('vfio_user_write_one', 24, {
  offset: ['u64', 0],
  region: ['u32', 8],
  count: ['u32', 12],
  data: ['u64', 16],
});

/** `struct vfio_user_dma_region_access`, up to `data[]`. */
export const vfio_user_dma_region_access = struct('vfio_user_dma_region_access', 16, {
  addr: ['u64', 0],
  count: ['u64', 8],
});

/** `struct vfio_user_region_io_fds_request`, and the head of the reply, which is the same. */
export const vfio_user_region_io_fds = struct('vfio_user_region_io_fds', 16, {
  argsz: ['u32', 0],
  flags: ['u32', 4],
  index: ['u32', 8],
  count: ['u32', 12],
});

/** `struct vfio_user_device_feature_dma_logging_control`, up to `ranges[]`. */
export const vfio_user_dma_logging_control = struct('vfio_user_dma_logging_control', 16, {
  page_size: ['u64', 0],
  num_ranges: ['u32', 8],
  reserved: ['u32', 12],
});

/** `struct vfio_user_device_feature_dma_logging_report`, up to `bitmap[]`. */
export const vfio_user_dma_logging_report = struct('vfio_user_dma_logging_report', 24, {
  iova: ['u64', 0],
  length: ['u64', 8],
  page_size: ['u64', 16],
});

/** `struct vfio_user_mig_data`, up to `data[]`. */
export const vfio_user_mig_data = struct('vfio_user_mig_data', 8, { argsz: ['u32', 0], size: ['u32', 4] });

/** The index of v1's migration region (`VFU_PCI_DEV_MIGR_REGION_IDX`): behind those of vfio-pci. */
export const VFU_PCI_DEV_MIGR_REGION_IDX = 9;
