/* linux/iommufd.h, and what linux/vfio.h has of it as of Linux 6.6 and 6.13, for hosts whose headers are older. */
#ifndef IOMMUFD_UAPI_H
#define IOMMUFD_UAPI_H

#include <linux/types.h>
#include <linux/vfio.h>

#if __has_include(<linux/iommufd.h>)
#include <linux/iommufd.h>
#endif

#ifndef VFIO_DEVICE_BIND_IOMMUFD
#define VFIO_DEVICE_BIND_IOMMUFD _IO(VFIO_TYPE, VFIO_BASE + 18)
#define VFIO_DEVICE_ATTACH_IOMMUFD_PT _IO(VFIO_TYPE, VFIO_BASE + 19)
#define VFIO_DEVICE_DETACH_IOMMUFD_PT _IO(VFIO_TYPE, VFIO_BASE + 20)
struct vfio_device_bind_iommufd { __u32 argsz, flags; __s32 iommufd; __u32 out_devid; };
struct vfio_device_attach_iommufd_pt { __u32 argsz, flags, pt_id; };
struct vfio_device_detach_iommufd_pt { __u32 argsz, flags; };
#endif

#ifndef IOMMU_DESTROY
#define IOMMU_DESTROY _IO(';', 0x80)
#define IOMMU_IOAS_ALLOC _IO(';', 0x81)
#define IOMMU_IOAS_MAP _IO(';', 0x85)
#define IOMMU_IOAS_UNMAP _IO(';', 0x86)
#define IOMMU_IOAS_MAP_FIXED_IOVA 1
#define IOMMU_IOAS_MAP_WRITEABLE 2
#define IOMMU_IOAS_MAP_READABLE 4
struct iommu_destroy { __u32 size, id; };
struct iommu_ioas_alloc { __u32 size, flags, out_ioas_id; };
struct iommu_ioas_map { __u32 size, flags, ioas_id, __reserved; __u64 user_va, length, iova; };
struct iommu_ioas_unmap { __u32 size, ioas_id; __u64 iova, length; };
#endif

#ifndef IOMMU_HWPT_SET_DIRTY_TRACKING
#define IOMMU_HWPT_ALLOC _IO(';', 0x89)
#define IOMMU_HWPT_SET_DIRTY_TRACKING _IO(';', 0x8b)
#define IOMMU_HWPT_GET_DIRTY_BITMAP _IO(';', 0x8c)
#define IOMMU_HWPT_ALLOC_DIRTY_TRACKING 2
#define IOMMU_HWPT_DIRTY_TRACKING_ENABLE 1
struct iommu_hwpt_alloc {
    __u32 size, flags, dev_id, pt_id, out_hwpt_id, __reserved, data_type, data_len;
    __u64 data_uptr;
};
struct iommu_hwpt_set_dirty_tracking { __u32 size, flags, hwpt_id, __reserved; };
struct iommu_hwpt_get_dirty_bitmap { __u32 size, hwpt_id, flags, __reserved; __u64 iova, length, page_size, data; };
#endif

#ifndef IOMMU_IOAS_MAP_FILE
#define IOMMU_IOAS_MAP_FILE _IO(';', 0x8f)
struct iommu_ioas_map_file { __u32 size, flags, ioas_id; __s32 fd; __u64 start, length, iova; };
#endif

#endif
