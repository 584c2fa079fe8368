/*
 * What a VMM that speaks migration protocol v1 does to reach the migration region: container, group, device, regions.
 * The device is the first of $VFIO_SHIM_DEVICES ("GROUP_PATH=NAME", space-separated).
 */
#ifndef BENCH_V1_CLIENT_H
#define BENCH_V1_CLIENT_H

#include <fcntl.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common.h"

/* linux/vfio.h of 5.8 to 5.17; later headers renamed or dropped these. */
#ifndef V1_REGION_TYPE /* a program that speaks a draft says so itself */
#define V1_REGION_TYPE 3
#endif
#define V1_REGION_SUBTYPE 1
#define V1_STOP 0u
#define V1_RUNNING 1u
#define V1_SAVING 2u
#define V1_RESUMING 4u
#define V1_DEVICE_STATE 0
#define V1_PENDING_BYTES 8
#define V1_DATA_OFFSET 16
#define V1_DATA_SIZE 24

struct v1_device {
    int container, group, fd;
    uint64_t bar0;        /* BAR0's offset in fd */
    uint64_t region;      /* the migration region's */
    uint64_t data, size;  /* its mappable area, relative to the region; size 0 if there is none */
};

/* GET_REGION_INFO with as much room as the device asks for; the caller frees it. */
static inline struct vfio_region_info *region_info(int device, uint32_t index) {
    uint32_t size = sizeof(struct vfio_region_info);
    struct vfio_region_info *info = NULL;

    for (;;) {
        info = realloc(info, size);
        if (!info) die("realloc");
        memset(info, 0, size);
        info->argsz = size;
        info->index = index;
        if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, info) < 0) {
            if (errno != EINVAL) die("VFIO_DEVICE_GET_REGION_INFO %u", index);
            free(info); /* QEMU too passes over a region that is not there */
            return NULL;
        }
        if (info->argsz <= size) return info;
        size = info->argsz;
    }
}

static inline struct vfio_info_cap_header *region_capability(struct vfio_region_info *info, uint16_t id) {
    uint32_t at = info->flags & VFIO_REGION_INFO_FLAG_CAPS ? info->cap_offset : 0;

    while (at >= sizeof *info && at + sizeof(struct vfio_info_cap_header) <= info->argsz) {
        struct vfio_info_cap_header *header = (void *)((char *)info + at);

        if (header->id == id) return header;
        if (header->next <= at) return NULL;
        at = header->next;
    }
    return NULL;
}

/* True, and the device's region filled in, if this is the migration region. */
static inline int is_migration_region(struct v1_device *device, struct vfio_region_info *info) {
    struct vfio_region_info_cap_type *type = (void *)region_capability(info, VFIO_REGION_INFO_CAP_TYPE);
    struct vfio_region_info_cap_sparse_mmap *sparse;

    if (!type || type->type != V1_REGION_TYPE || type->subtype != V1_REGION_SUBTYPE) return 0;
    device->region = info->offset;
    sparse = (void *)region_capability(info, VFIO_REGION_INFO_CAP_SPARSE_MMAP);
    if (info->flags & VFIO_REGION_INFO_FLAG_MMAP && sparse && sparse->nr_areas > 0) {
        device->data = sparse->areas[0].offset;
        device->size = sparse->areas[0].size;
    }
    return 1;
}

static inline void find_migration_region(struct v1_device *device) {
    struct vfio_device_info info = {.argsz = sizeof info};

    if (ioctl(device->fd, VFIO_DEVICE_GET_INFO, &info) < 0) die("VFIO_DEVICE_GET_INFO");
    for (uint32_t index = 0; index < info.num_regions; index++) {
        struct vfio_region_info *region = region_info(device->fd, index);
        int found = region && is_migration_region(device, region);

        if (region && index == VFIO_PCI_BAR0_REGION_INDEX) device->bar0 = region->offset;
        free(region);
        if (found) return;
    }
    fail("no migration region among %u regions", info.num_regions);
}

static inline struct v1_device open_v1_device(void) {
    struct v1_device device = {.size = 0};
    struct vfio_group_status status = {.argsz = sizeof status};
    struct vfio_iommu_type1_info iommu = {.argsz = sizeof iommu};
    const char *list = getenv("VFIO_SHIM_DEVICES");
    char path[256], name[256];

    if (!list || sscanf(list, "%255[^= ]=%255[^ ]", path, name) != 2)
        fail("VFIO_SHIM_DEVICES does not name a device: %s", list ? list : "not set");

    device.container = open("/dev/vfio/vfio", O_RDWR);
    if (device.container < 0) die("open /dev/vfio/vfio");
    if (ioctl(device.container, VFIO_GET_API_VERSION) != VFIO_API_VERSION) fail("VFIO_GET_API_VERSION: not 0");
    if (ioctl(device.container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) != 1) fail("no VFIO_TYPE1v2_IOMMU");

    device.group = open(path, O_RDWR);
    if (device.group < 0) die("open %s", path);
    if (ioctl(device.group, VFIO_GROUP_GET_STATUS, &status) < 0) die("VFIO_GROUP_GET_STATUS");
    if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE)) fail("group %s is not viable", path);
    if (ioctl(device.group, VFIO_GROUP_SET_CONTAINER, &device.container) < 0) die("VFIO_GROUP_SET_CONTAINER");
    if (ioctl(device.container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0) die("VFIO_SET_IOMMU");
    if (ioctl(device.container, VFIO_IOMMU_GET_INFO, &iommu) < 0) die("VFIO_IOMMU_GET_INFO");

    device.fd = ioctl(device.group, VFIO_GROUP_GET_DEVICE_FD, name);
    if (device.fd < 0) die("VFIO_GROUP_GET_DEVICE_FD %s", name);
    find_migration_region(&device);
    return device;
}

#endif
