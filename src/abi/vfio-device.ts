import { struct } from './struct.ts';

/** `VFIO_API_VERSION` and the extensions of `VFIO_CHECK_EXTENSION` and `VFIO_SET_IOMMU` (linux/vfio.h, 3.6; the last two 5.12). */
export const VFIO_API_VERSION = 0;
export const VFIO_TYPE1_IOMMU = 1;
export const VFIO_SPAPR_TCE_IOMMU = 2;
export const VFIO_TYPE1v2_IOMMU = 3;
export const VFIO_DMA_CC_IOMMU = 4;
export const VFIO_EEH = 5;
/** Given up in later headers, where the number stays reserved. */
export const VFIO_TYPE1_NESTING_IOMMU = 6;
export const VFIO_SPAPR_TCE_v2_IOMMU = 7;
export const VFIO_NOIOMMU_IOMMU = 8;
export const VFIO_UNMAP_ALL = 9;
export const VFIO_UPDATE_VADDR = 10;

/** `struct vfio_group_status` and its flags (linux/vfio.h, 3.6). */
export const VFIO_GROUP_FLAGS_VIABLE = 1;
export const VFIO_GROUP_FLAGS_CONTAINER_SET = 2;
export const vfio_group_status = struct('vfio_group_status', 8, { argsz: ['u32', 0], flags: ['u32', 4] });

/** `struct vfio_info_cap_header`: begins every capability of an INFO ioctl (linux/vfio.h, 4.6). `next` counts from the info struct. */
export const vfio_info_cap_header = struct('vfio_info_cap_header', 8, {
  id: ['u16', 0],
  version: ['u16', 2],
  next: ['u32', 4],
});

/** Flags of `struct vfio_device_info` (linux/vfio.h, 3.6 to 6.2). */
export const VFIO_DEVICE_FLAGS_RESET = 1;
export const VFIO_DEVICE_FLAGS_PCI = 2;
export const VFIO_DEVICE_FLAGS_PLATFORM = 4;
export const VFIO_DEVICE_FLAGS_AMBA = 8;
export const VFIO_DEVICE_FLAGS_CCW = 0x10;
export const VFIO_DEVICE_FLAGS_AP = 0x20;
export const VFIO_DEVICE_FLAGS_FSL_MC = 0x40;
export const VFIO_DEVICE_FLAGS_CAPS = 0x80;
export const VFIO_DEVICE_FLAGS_CDX = 0x100;

/**
 * `struct vfio_device_info` as of Linux 5.8. Before, it ended at 16, without `cap_offset`; later headers pad it to 24.
 * `argsz` tells which one a caller has.
 */
export const vfio_device_info = struct('vfio_device_info', 20, {
  argsz: ['u32', 0],
  flags: ['u32', 4],
  num_regions: ['u32', 8],
  num_irqs: ['u32', 12],
  cap_offset: ['u32', 16],
});

/** `struct vfio_region_info` and its flags (linux/vfio.h, 3.6; capabilities 4.6). */
export const VFIO_REGION_INFO_FLAG_READ = 1;
export const VFIO_REGION_INFO_FLAG_WRITE = 2;
export const VFIO_REGION_INFO_FLAG_MMAP = 4;
export const VFIO_REGION_INFO_FLAG_CAPS = 8;
export const vfio_region_info = struct('vfio_region_info', 32, {
  argsz: ['u32', 0],
  flags: ['u32', 4],
  index: ['u32', 8],
  cap_offset: ['u32', 12],
  size: ['u64', 16],
  offset: ['u64', 24],
});

/** Capabilities of `struct vfio_region_info` (linux/vfio.h, 4.6; MSIX_MAPPABLE 4.16). */
export const VFIO_REGION_INFO_CAP_SPARSE_MMAP = 1;
export const VFIO_REGION_INFO_CAP_TYPE = 2;
export const VFIO_REGION_INFO_CAP_MSIX_MAPPABLE = 3;

/** `struct vfio_region_info_cap_sparse_mmap`, up to `areas[]`, which is `nr_areas` times {@link vfio_region_sparse_mmap_area}. */
export const vfio_region_info_cap_sparse_mmap = struct('vfio_region_info_cap_sparse_mmap', 16, {
  id: ['u16', 0],
  version: ['u16', 2],
  next: ['u32', 4],
  nr_areas: ['u32', 8],
  reserved: ['u32', 12],
});
export const vfio_region_sparse_mmap_area = struct('vfio_region_sparse_mmap_area', 16, {
  offset: ['u64', 0],
  size: ['u64', 8],
});

/** `struct vfio_region_info_cap_type`. */
export const vfio_region_info_cap_type = struct('vfio_region_info_cap_type', 16, {
  id: ['u16', 0],
  version: ['u16', 2],
  next: ['u32', 4],
  type: ['u32', 8],
  subtype: ['u32', 12],
});
/** Region types: a PCI vendor's own (the vendor id is in the mask's bits), graphics, channel I/O. */
export const VFIO_REGION_TYPE_PCI_VENDOR_TYPE = 0x8000_0000;
export const VFIO_REGION_TYPE_PCI_VENDOR_MASK = 0xffff;
export const VFIO_REGION_TYPE_GFX = 1;
export const VFIO_REGION_TYPE_CCW = 2;

/** Region indices of vfio-pci (linux/vfio.h, 3.6). From NUM_REGIONS on, a capability says what a region is. */
export const VFIO_PCI_BAR0_REGION_INDEX = 0;
export const VFIO_PCI_BAR1_REGION_INDEX = 1;
export const VFIO_PCI_BAR2_REGION_INDEX = 2;
export const VFIO_PCI_BAR3_REGION_INDEX = 3;
export const VFIO_PCI_BAR4_REGION_INDEX = 4;
export const VFIO_PCI_BAR5_REGION_INDEX = 5;
export const VFIO_PCI_ROM_REGION_INDEX = 6;
export const VFIO_PCI_CONFIG_REGION_INDEX = 7;
export const VFIO_PCI_VGA_REGION_INDEX = 8;
export const VFIO_PCI_NUM_REGIONS = 9;

/** Interrupt indices of vfio-pci (linux/vfio.h, 3.6; ERR 3.10, REQ 4.0). */
export const VFIO_PCI_INTX_IRQ_INDEX = 0;
export const VFIO_PCI_MSI_IRQ_INDEX = 1;
export const VFIO_PCI_MSIX_IRQ_INDEX = 2;
export const VFIO_PCI_ERR_IRQ_INDEX = 3;
export const VFIO_PCI_REQ_IRQ_INDEX = 4;
export const VFIO_PCI_NUM_IRQS = 5;

/** `struct vfio_irq_info` and its flags (linux/vfio.h, 3.6). */
export const VFIO_IRQ_INFO_EVENTFD = 1;
export const VFIO_IRQ_INFO_MASKABLE = 2;
export const VFIO_IRQ_INFO_AUTOMASKED = 4;
export const VFIO_IRQ_INFO_NORESIZE = 8;
export const vfio_irq_info = struct('vfio_irq_info', 16, {
  argsz: ['u32', 0],
  flags: ['u32', 4],
  index: ['u32', 8],
  count: ['u32', 12],
});

/** `struct vfio_irq_set`, up to `data[]`, and its flags (linux/vfio.h, 3.6). */
export const VFIO_IRQ_SET_DATA_NONE = 1;
export const VFIO_IRQ_SET_DATA_BOOL = 2;
export const VFIO_IRQ_SET_DATA_EVENTFD = 4;
export const VFIO_IRQ_SET_ACTION_MASK = 8;
export const VFIO_IRQ_SET_ACTION_UNMASK = 0x10;
export const VFIO_IRQ_SET_ACTION_TRIGGER = 0x20;
export const VFIO_IRQ_SET_DATA_TYPE_MASK = 7;
export const VFIO_IRQ_SET_ACTION_TYPE_MASK = 0x38;
export const vfio_irq_set = struct('vfio_irq_set', 20, {
  argsz: ['u32', 0],
  flags: ['u32', 4],
  index: ['u32', 8],
  start: ['u32', 12],
  count: ['u32', 16],
});

/** `struct vfio_pci_hot_reset_info`, up to `devices[]`, which is `count` times {@link vfio_pci_dependent_device} (linux/vfio.h, 3.12; the flags 6.6). */
export const VFIO_PCI_HOT_RESET_FLAG_DEV_ID = 1;
export const VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED = 2;
export const vfio_pci_hot_reset_info = struct('vfio_pci_hot_reset_info', 12, {
  argsz: ['u32', 0],
  flags: ['u32', 4],
  count: ['u32', 8],
});
export const vfio_pci_dependent_device = struct('vfio_pci_dependent_device', 8, {
  group_id: ['u32', 0],
  segment: ['u16', 4],
  bus: ['u8', 6],
  devfn: ['u8', 7],
});

/** `struct vfio_pci_hot_reset`, up to `group_fds[]`, which is `count` times s32 (linux/vfio.h, 3.12). */
export const vfio_pci_hot_reset = struct('vfio_pci_hot_reset', 12, {
  argsz: ['u32', 0],
  flags: ['u32', 4],
  count: ['u32', 8],
});

/** `struct vfio_device_bind_iommufd` as of Linux 6.6 (`token_uuid_ptr` came later; `argsz` leaves it out). */
export const vfio_device_bind_iommufd = struct('vfio_device_bind_iommufd', 16, {
  argsz: ['u32', 0],
  flags: ['u32', 4],
  iommufd: ['s32', 8],
  out_devid: ['u32', 12],
});

/** `struct vfio_device_attach_iommufd_pt` as of Linux 6.6 (`pasid` came later; `argsz` leaves it out). */
export const vfio_device_attach_iommufd_pt = struct('vfio_device_attach_iommufd_pt', 12, {
  argsz: ['u32', 0],
  flags: ['u32', 4],
  pt_id: ['u32', 8],
});

/** `struct vfio_device_detach_iommufd_pt` as of Linux 6.6 (`pasid` came later; `argsz` leaves it out). */
export const vfio_device_detach_iommufd_pt = struct('vfio_device_detach_iommufd_pt', 8, {
  argsz: ['u32', 0],
  flags: ['u32', 4],
});
