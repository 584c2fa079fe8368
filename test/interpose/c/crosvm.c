/*
 * crosvm: a VMM that makes crosvm's calls on a device, in its order and with its sizes (google/crosvm, devices/src/vfio.rs and
 * devices/src/pci/vfio_pci.rs, as of 2022: structs without what was added behind, capabilities looked for if argsz has grown, memory mapped
 * before there is a device, groups and devices left open until the end). Its argument is the device's directory in sysfs; prints what it has seen.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <libgen.h>
#include <linux/vfio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common.h"

#define REGIONS 16
#define MEMORY (256ul << 20)

static struct {
    uint32_t flags;
    uint64_t size, offset;
} regions[REGIONS];
static int device;

static int ask(int fd, unsigned long request, void *argument, const char *name) {
    int result = ioctl(fd, request, argument);

    if (result < 0) die("%s", name);
    return result;
}

/* VfioContainer::new(), VfioGroup::new(), VfioContainer::init(), VfioGroup::get_device() */
static void open_device(const char *path) {
    struct vfio_group_status status = {.argsz = sizeof status};
    struct {
        uint32_t argsz, flags;
        uint64_t iova_pgsizes;
    } info = {.argsz = sizeof info};
    struct vfio_iommu_type1_dma_map map = {.argsz = sizeof map, .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE};
    char link[512], name[512], group_path[600];
    ssize_t length;
    int container, group;

    if ((container = open("/dev/vfio/vfio", O_RDWR)) < 0) die("/dev/vfio/vfio");
    if (ioctl(container, VFIO_GET_API_VERSION) != VFIO_API_VERSION) fail("another API");
    snprintf(name, sizeof name, "%s/iommu_group", path);
    if ((length = readlink(name, link, sizeof link - 1)) < 0) die("%s", name);
    link[length] = 0;
    snprintf(group_path, sizeof group_path, "/dev/vfio/%s", basename(link));
    if ((group = open(group_path, O_RDWR)) < 0) die("%s", group_path);
    ask(group, VFIO_GROUP_GET_STATUS, &status, "VFIO_GROUP_GET_STATUS");
    if (status.flags != VFIO_GROUP_FLAGS_VIABLE) fail("the group's flags are %u", status.flags);
    ask(group, VFIO_GROUP_SET_CONTAINER, &container, "VFIO_GROUP_SET_CONTAINER");
    if (ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) != 1) fail("no type1v2");
    if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)) die("VFIO_SET_IOMMU");
    map.vaddr = (uintptr_t)mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    map.size = MEMORY;
    ask(container, VFIO_IOMMU_MAP_DMA, &map, "VFIO_IOMMU_MAP_DMA");
    device = ask(group, VFIO_GROUP_GET_DEVICE_FD, basename(strcpy(name, path)), "VFIO_GROUP_GET_DEVICE_FD");
    ask(container, VFIO_IOMMU_GET_INFO, &info, "VFIO_IOMMU_GET_INFO");
    if (!(info.flags & VFIO_IOMMU_INFO_PGSIZES) || !(info.iova_pgsizes & 4096)) fail("no pages of 4096 bytes");
}

/* VfioDevice::get_regions() */
static void look(void) {
    struct {
        uint32_t argsz, flags, num_regions, num_irqs;
    } info = {.argsz = sizeof info};

    ask(device, VFIO_DEVICE_GET_INFO, &info, "VFIO_DEVICE_GET_INFO");
    if (!(info.flags & VFIO_DEVICE_FLAGS_PCI) || info.num_irqs <= VFIO_PCI_MSIX_IRQ_INDEX) fail("no PCI device");
    if (info.num_regions <= VFIO_PCI_CONFIG_REGION_INDEX || info.num_regions > REGIONS) fail("%u regions", info.num_regions);
    for (uint32_t index = 0; index < info.num_regions; index++) {
        struct vfio_region_info region = {.argsz = sizeof region, .index = index}, *whole;

        if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region)) {
            printf("no region %u: %s\n", index, strerror(errno));
            continue;
        }
        if (region.argsz > sizeof region) {
            whole = calloc(1, region.argsz);
            whole->argsz = region.argsz;
            whole->index = index;
            ask(device, VFIO_DEVICE_GET_REGION_INFO, whole, "VFIO_DEVICE_GET_REGION_INFO");
            if (!(whole->flags & VFIO_REGION_INFO_FLAG_CAPS)) fail("argsz of region %u has grown for nothing", index);
            for (uint32_t at = whole->cap_offset; at; at = ((struct vfio_info_cap_header *)((char *)whole + at))->next)
                if (at + sizeof(struct vfio_info_cap_header) > region.argsz) fail("a capability of region %u at %u", index, at);
            region.flags = whole->flags;
            free(whole);
        }
        regions[index].flags = region.flags;
        regions[index].size = region.size;
        regions[index].offset = region.offset;
    }
}

static uint32_t config(unsigned at, unsigned length) {
    uint32_t value = 0;

    if (pread(device, &value, length, regions[VFIO_PCI_CONFIG_REGION_INDEX].offset + at) != (ssize_t)length) die("config 0x%x", at);
    return value;
}

static void set_config(unsigned at, uint32_t value, unsigned length) {
    if (pwrite(device, &value, length, regions[VFIO_PCI_CONFIG_REGION_INDEX].offset + at) != (ssize_t)length) die("config 0x%x", at);
}

/* VfioPciDevice::collect_bars(): all ones, and what was there before back again */
static void size_bars(void) {
    for (unsigned bar = 0; bar < 6; bar++) {
        unsigned at = 0x10 + 4 * bar;
        uint32_t before = config(at, 4), lower, upper = 0xffffffff;
        uint64_t size;

        set_config(at, 0xffffffff, 4);
        lower = config(at, 4) & ~0xfu;
        set_config(at, before, 4);
        if (before & 4) {
            set_config(at + 4, 0xffffffff, 4);
            upper = config(at + 4, 4);
            set_config(at + 4, 0, 4);
        }
        size = lower || (before & 4) ? -((uint64_t)upper << 32 | lower) : 0;
        if (size != regions[bar].size) fail("BAR%u has %lu bytes by itself, and %lu as a region", bar, size, regions[bar].size);
        if (config(at, 4) != before) fail("BAR%u is not what it was", bar);
        if (size) printf("BAR%u: %lu bytes%s\n", bar, size, regions[bar].flags & VFIO_REGION_INFO_FLAG_MMAP ? ", mapped" : "");
        if (before & 4) bar++;
    }
}

/* VfioPciDevice::add_bar_mmap() */
static void map_bars(void) {
    static const char text[] = "written by mmap";
    char back[sizeof text];

    for (unsigned bar = 0; bar < 6; bar++) {
        char *memory;

        if (!(regions[bar].flags & VFIO_REGION_INFO_FLAG_MMAP)) continue;
        memory = mmap(NULL, regions[bar].size, PROT_READ | PROT_WRITE, MAP_SHARED, device, regions[bar].offset);
        if (memory == MAP_FAILED) die("a mapping of BAR%u", bar);
        memcpy(memory + regions[bar].size - sizeof text, text, sizeof text);
        if (pread(device, back, sizeof back, regions[bar].offset + regions[bar].size - sizeof text) != sizeof back) die("BAR%u", bar);
        if (memcmp(back, text, sizeof text)) fail("BAR%u is another memory", bar);
    }
}

/* VfioDevice::irq_enable() and its like */
static int set_irqs(uint32_t index, uint32_t flags, uint32_t count, const int *fds) {
    struct {
        struct vfio_irq_set set;
        int fds[16];
    } irqs = {.set = {.argsz = sizeof irqs.set + (fds ? count * sizeof *fds : 0), .flags = flags, .index = index, .count = count}};

    if (fds) memcpy(irqs.fds, fds, count * sizeof *fds);
    return ioctl(device, VFIO_DEVICE_SET_IRQS, &irqs.set);
}

static void try_interrupts(uint32_t index, const char *name) {
    const uint32_t events = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    const uint32_t none = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
    struct vfio_irq_info info = {.argsz = sizeof info, .index = index};
    uint64_t value;
    int fds[16], resample;

    ask(device, VFIO_DEVICE_GET_IRQ_INFO, &info, "VFIO_DEVICE_GET_IRQ_INFO");
    if (!info.count || info.count > 16) fail("%s: %u", name, info.count);
    for (uint32_t n = 0; n < info.count; n++)
        if ((fds[n] = eventfd(0, EFD_NONBLOCK)) < 0) die("eventfd");
    if (set_irqs(index, events, info.count, fds)) die("%s", name);
    if (index == VFIO_PCI_INTX_IRQ_INDEX) { /* resample_virq_enable(), irq_mask(), irq_unmask() */
        if ((resample = eventfd(0, EFD_NONBLOCK)) < 0) die("eventfd");
        if (set_irqs(index, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK, 1, &resample)) die("resample");
        if (set_irqs(index, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK, 1, NULL)) die("mask");
        if (set_irqs(index, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK, 1, NULL)) die("unmask");
    }
    if (set_irqs(index, none, info.count, NULL)) die("%s is not triggered", name);
    for (uint32_t n = 0; n < info.count; n++) {
        if (read(fds[n], &value, 8) != 8 || value != 1) fail("%s %u does not come", name, n);
        close(fds[n]);
    }
    if (set_irqs(index, none, 0, NULL)) die("%s is not disabled", name);
    printf("%u of %s\n", info.count, name);
}

int main(int argc, char **argv) {
    if (argc != 2) fail("usage: crosvm DEVICE");
    open_device(argv[1]);
    look();
    size_bars();
    if (ioctl(device, VFIO_DEVICE_RESET)) die("VFIO_DEVICE_RESET");
    set_config(4, config(4, 2) | 6, 2);
    map_bars();
    try_interrupts(VFIO_PCI_INTX_IRQ_INDEX, "INTx");
    try_interrupts(VFIO_PCI_MSI_IRQ_INDEX, "MSI");
    try_interrupts(VFIO_PCI_MSIX_IRQ_INDEX, "MSI-X");
    return 0;
}
