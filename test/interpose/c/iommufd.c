/*
 * iommufd: a VMM that knows linux/iommufd.h and linux/vfio.h alone, with one emulated device of `dma=`: opens it by its own node, gives it an
 * address space, and waits for its DMA. After each line that it prints it waits for one of stdin.
 *
 *   bound     the device is bound, attached, and has written to memory that is mapped
 *   written   and once more, since then
 *   mapped    memory of a file is mapped in its place, and has been written to
 *   closed    all is closed
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common.h"
#include "iommufd-uapi.h"

#define PAGES 64
#define SIZE (PAGES * 4096ul)
#define IOVA 0x200000ul

static unsigned char bitmap[PAGES / 8];

static void is(const char *what, long result, int wanted) {
    int error = result < 0 ? errno : 0;

    if (error != wanted) fail("%s: %s, not %s", what, strerror(error), strerror(wanted));
}

/* The next line of whoever runs this, who has done something meanwhile. */
static void tell(const char *line) {
    char answer[16];

    printf("%s\n", line);
    fflush(stdout);
    if (!fgets(answer, sizeof answer, stdin)) exit(0);
}

/* The device of a node is the one that sysfs names: the answers of stat(2) and its kind. */
static void look(const char *sysfs, const char *path, int fd) {
    char name[512], text[32] = {0}, wanted[32];
    struct stat by_path, by_fd;
    struct statx extended;
    int file;

    snprintf(name, sizeof name, "%s/vfio-dev/vfio0/dev", sysfs);
    if ((file = open(name, O_RDONLY)) < 0 || read(file, text, sizeof text - 1) <= 0) die("%s", name);
    close(file);
    if (stat(path, &by_path) || fstat(fd, &by_fd)) die("stat");
    if (statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, &extended)) die("statx");
    if (!S_ISCHR(by_path.st_mode) || !S_ISCHR(by_fd.st_mode) || !S_ISCHR(extended.stx_mode)) fail("no character device");
    snprintf(wanted, sizeof wanted, "%u:%u\n", major(by_fd.st_rdev), minor(by_fd.st_rdev));
    if (strcmp(wanted, text) || by_path.st_rdev != by_fd.st_rdev || extended.stx_rdev_minor != minor(by_fd.st_rdev))
        fail("device %s, sysfs says %s", wanted, text);
    is("access", access(path, R_OK | W_OK), 0);
    is("faccessat", faccessat(AT_FDCWD, path, W_OK, AT_EACCESS), 0);
    if (stat("/dev/vfio/devices/vfio1", &by_path) == 0) fail("a node of no device");
}

/* Waits until a page of the memory has a record of the device's that is new; forgets it. */
static void wait_for_dma(volatile unsigned char *memory) {
    double until = now_ns() + 60e9;

    for (;;) {
        for (unsigned long page = 0; page < SIZE; page += 4096) {
            if (memcmp((const void *)(memory + page), "vfio-dma", 8)) continue;
            memory[page] = 0;
            return;
        }
        if (now_ns() > until) fail("the device writes nothing");
        usleep(1000);
    }
}

static void forget(volatile unsigned char *memory) {
    for (unsigned long page = 0; page < SIZE; page += 4096) memory[page] = 0;
}

int main(int argc, char **argv) {
    const char *path = "/dev/vfio/devices/vfio0";
    struct vfio_device_info info = {.argsz = sizeof info};
    struct vfio_region_info config = {.argsz = sizeof config, .index = VFIO_PCI_CONFIG_REGION_INDEX};
    struct vfio_device_bind_iommufd bind = {.argsz = sizeof bind};
    struct vfio_device_attach_iommufd_pt attach = {.argsz = sizeof attach};
    struct vfio_device_detach_iommufd_pt detach = {.argsz = sizeof detach};
    struct iommu_ioas_alloc alloc = {.size = sizeof alloc};
    struct iommu_hwpt_alloc table = {.size = sizeof table, .flags = IOMMU_HWPT_ALLOC_DIRTY_TRACKING};
    struct iommu_hwpt_set_dirty_tracking track = {.size = sizeof track, .flags = IOMMU_HWPT_DIRTY_TRACKING_ENABLE};
    struct iommu_hwpt_get_dirty_bitmap dirty = {.size = sizeof dirty, .iova = IOVA, .length = SIZE, .page_size = 4096};
    struct iommu_ioas_map map = {.size = sizeof map, .length = SIZE, .iova = IOVA,
                                 .flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE | IOMMU_IOAS_MAP_READABLE};
    struct iommu_ioas_map_file map_file = {.size = sizeof map_file, .length = SIZE, .iova = IOVA, .flags = map.flags};
    struct iommu_ioas_unmap unmap = {.size = sizeof unmap, .iova = IOVA, .length = SIZE};
    struct iommu_destroy destroy = {.size = sizeof destroy};
    int device, other, iommu, group, memfd;
    unsigned short command = 6; /* memory and bus master */
    unsigned dirty_pages = 0;
    unsigned char *memory;

    if (argc != 2) fail("usage: iommufd SYSFSDEV");
    if ((device = open(path, O_RDWR)) < 0 || (other = open(path, O_RDWR)) < 0) die("%s", path);
    if ((iommu = open("/dev/iommu", O_RDWR)) < 0) die("/dev/iommu");
    look(argv[1], path, device);

    is("GET_INFO before BIND", ioctl(device, VFIO_DEVICE_GET_INFO, &info), EINVAL);
    bind.iommufd = 1000;
    is("BIND to no descriptor", ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind), EBADF);
    bind.iommufd = device;
    is("BIND to a device", ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind), EBADFD);
    bind.iommufd = iommu;
    if ((group = open("/dev/vfio/9000", O_RDWR)) < 0) die("/dev/vfio/9000");
    is("BIND with the group open", ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind), EBUSY);
    close(group);
    is("BIND", ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind), 0);
    is("BIND again", ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind), EINVAL);
    is("BIND by another descriptor", ioctl(other, VFIO_DEVICE_BIND_IOMMUFD, &bind), EINVAL);
    is("GET_INFO by another descriptor", ioctl(other, VFIO_DEVICE_GET_INFO, &info), EINVAL);
    is("the group", open("/dev/vfio/9000", O_RDWR), EBUSY);
    is("GET_INFO", ioctl(device, VFIO_DEVICE_GET_INFO, &info), 0);
    is("GET_REGION_INFO", ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &config), 0);

    is("ATTACH to nothing", ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach), ENOENT);
    is("IOAS_ALLOC", ioctl(iommu, IOMMU_IOAS_ALLOC, &alloc), 0);
    table.dev_id = bind.out_devid;
    table.pt_id = alloc.out_ioas_id;
    is("HWPT_ALLOC", ioctl(iommu, IOMMU_HWPT_ALLOC, &table), 0);
    attach.pt_id = table.out_hwpt_id;
    is("ATTACH", ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach), 0);
    if (attach.pt_id != table.out_hwpt_id) fail("attached to %u", attach.pt_id);
    destroy.id = table.out_hwpt_id;
    is("DESTROY of what is in use", ioctl(iommu, IOMMU_DESTROY, &destroy), EBUSY);

    if ((memfd = memfd_create("memory", 0)) < 0 || ftruncate(memfd, (off_t)SIZE)) die("memfd_create");
    memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    if (memory == MAP_FAILED) die("mmap");
    map.ioas_id = map_file.ioas_id = unmap.ioas_id = alloc.out_ioas_id;
    map.user_va = (uintptr_t)memory;
    track.hwpt_id = dirty.hwpt_id = table.out_hwpt_id;
    dirty.data = (uintptr_t)bitmap;
    is("SET_DIRTY_TRACKING", ioctl(iommu, IOMMU_HWPT_SET_DIRTY_TRACKING, &track), 0);
    is("IOAS_MAP", ioctl(iommu, IOMMU_IOAS_MAP, &map), 0);
    is("IOAS_MAP again", ioctl(iommu, IOMMU_IOAS_MAP, &map), EEXIST);
    if (pwrite(device, &command, sizeof command, (off_t)config.offset + 4) != sizeof command) die("config space");
    wait_for_dma(memory);
    tell("bound");

    is("IOAS_MAP, as before", ioctl(iommu, IOMMU_IOAS_MAP, &map), EEXIST);
    forget(memory);
    wait_for_dma(memory);
    is("GET_DIRTY_BITMAP", ioctl(iommu, IOMMU_HWPT_GET_DIRTY_BITMAP, &dirty), 0);
    for (unsigned n = 0; n < sizeof bitmap; n++) dirty_pages += (unsigned)__builtin_popcount(bitmap[n]);
    if (dirty_pages == 0) fail("no dirty page");
    tell("written");

    is("IOAS_UNMAP", ioctl(iommu, IOMMU_IOAS_UNMAP, &unmap), 0);
    if (unmap.length != SIZE) fail("%llu bytes were unmapped", (unsigned long long)unmap.length);
    is("IOAS_UNMAP again", ioctl(iommu, IOMMU_IOAS_UNMAP, &unmap), ENOENT);
    forget(memory);
    map_file.fd = memfd;
    is("IOAS_MAP_FILE", ioctl(iommu, IOMMU_IOAS_MAP_FILE, &map_file), 0);
    wait_for_dma(memory);
    tell("mapped");

    forget(memory);
    wait_for_dma(memory);
    is("DETACH", ioctl(device, VFIO_DEVICE_DETACH_IOMMUFD_PT, &detach), 0);
    is("DESTROY", ioctl(iommu, IOMMU_DESTROY, &destroy), 0);
    forget(memory);
    close(device);
    close(other);
    if ((group = open("/dev/vfio/9000", O_RDWR)) < 0) die("/dev/vfio/9000, when the device is closed");
    for (unsigned long page = 0; page < SIZE; page += 4096)
        if (memory[page]) fail("the device writes where nothing is mapped");
    destroy.id = bind.out_devid;
    is("DESTROY of a device that is closed", ioctl(iommu, IOMMU_DESTROY, &destroy), ENOENT);
    destroy.id = alloc.out_ioas_id;
    is("DESTROY of the address space", ioctl(iommu, IOMMU_DESTROY, &destroy), 0);
    tell("closed");
    return 0;
}
