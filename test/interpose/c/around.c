/*
 * around WAY: looks for a way around a filter to what of an emulated device is nobody's to write, knowing linux/vfio.h alone. WAY is `uring`, whose
 * reads and writes no filter sees, or `int80`, by which calls have other numbers. Exit status 0 if nothing was read or written behind BAR0, and config
 * space is as it was, whatever was written to where it is read.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common.h"

#define LENGTH 64
#ifdef MAP_32BIT
#define LOW MAP_32BIT
#else
#define LOW 0
#endif
#define CONFIG ((uint64_t)VFIO_PCI_CONFIG_REGION_INDEX << 40)

static int device;
static unsigned char *bytes; /* below 4 GiB, as 32-bit calls need it */

static int open_device(void) {
    int container = open("/dev/vfio/vfio", O_RDWR), group = open("/dev/vfio/9000", O_RDWR), fd;

    if (container < 0 || group < 0) die("open");
    if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container)) die("VFIO_GROUP_SET_CONTAINER");
    if (ioctl(container, VFIO_SET_IOMMU, (unsigned long)VFIO_TYPE1v2_IOMMU)) die("VFIO_SET_IOMMU");
    if ((fd = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, "0000:90:00.0")) < 0) die("VFIO_GROUP_GET_DEVICE_FD");
    return fd;
}

/* One request of an io_uring, and its result. */
static long by_uring(int is_write, uint64_t offset) {
    static struct io_uring_params params;
    static int ring = -1;
    static unsigned char *queue, *completions;
    static struct io_uring_sqe *entries;
    unsigned *tail, *head;
    long result;

    if (ring < 0) {
        ring = (int)syscall(SYS_io_uring_setup, 1, &params);
        if (ring < 0) die("io_uring_setup");
        queue = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
        completions = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
        entries = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
        if (queue == MAP_FAILED || completions == MAP_FAILED || entries == MAP_FAILED) die("mmap of an io_uring");
    }
    *entries = (struct io_uring_sqe){
        .opcode = is_write ? IORING_OP_WRITE : IORING_OP_READ,
        .fd = device,
        .off = offset,
        .addr = (uintptr_t)bytes,
        .len = LENGTH,
    };
    ((unsigned *)(queue + params.sq_off.array))[0] = 0;
    tail = (unsigned *)(queue + params.sq_off.tail);
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1) die("io_uring_enter");
    head = (unsigned *)(completions + params.cq_off.head);
    result = ((struct io_uring_cqe *)(completions + params.cq_off.cqes))[*head & (params.cq_entries - 1)].res;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return result;
}

#ifdef __x86_64__
/* asm/unistd_32.h */
static long call32(unsigned number, uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e, uint32_t f) {
    uint32_t result;

    /* the sixth argument is in ebp, which a compiler may need itself */
    __asm__ volatile("push %%rbp\n\tmov %7, %%ebp\n\tint $0x80\n\tpop %%rbp"
                     : "=a"(result)
                     : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e), "r"(f)
                     : "memory", "r8", "r9", "r10", "r11");
    return (int32_t)result;
}

static long by_int80(int is_write, uint64_t offset) {
    return call32(is_write ? 181 : 180, (uint32_t)device, (uint32_t)(uintptr_t)bytes, LENGTH, (uint32_t)offset,
                  (uint32_t)(offset >> 32), 0);
}

/* A mapping of what is behind BAR0 holds nothing that could be read. */
static void map_by_int80(uint64_t end) {
    long mapped = call32(192, 0, 4096, PROT_READ, MAP_SHARED, (uint32_t)device, (uint32_t)(end >> 12));
    int ends[2];

    if (mapped < 0 && mapped > -4096) return;
    if (pipe(ends) < 0) die("pipe");
    if (write(ends[1], (void *)(uintptr_t)(uint32_t)mapped, 1) >= 0) fail("there is something behind BAR0");
}
#else
static long by_int80(int is_write, uint64_t offset) {
    (void)is_write;
    (void)offset;
    fail("this processor has no 32-bit calls");
}

static void map_by_int80(uint64_t end) {
    (void)end;
}
#endif

int main(int argc, char **argv) {
    int is_uring = argc == 2 && strcmp(argv[1], "uring") == 0;
    long (*access_by)(int, uint64_t) = is_uring ? by_uring : by_int80;
    unsigned char config[256], bar[LENGTH], now[256];
    struct iovec vector = {now, sizeof now};
    struct vfio_region_info info = {.argsz = sizeof info, .index = VFIO_PCI_BAR0_REGION_INDEX};
    uint64_t end;

    if (argc != 2) fail("usage: around uring|int80");
    bytes = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | LOW, -1, 0);
    if (bytes == MAP_FAILED) die("mmap");
    device = open_device();
    if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info)) die("VFIO_DEVICE_GET_REGION_INFO");
    end = info.offset + info.size;
    if (pread(device, config, sizeof config, CONFIG) != sizeof config) die("config space");
    if (pread(device, bar, sizeof bar, (off_t)info.offset) != sizeof bar) die("BAR0");

    /* that it is a way at all shows BAR0, which is the user's to write */
    memset(bytes, 0xa5, LENGTH);
    if (access_by(1, end - LENGTH) != LENGTH) fail("%s: no way to BAR0", argv[1]);
    memset(bytes, 0, LENGTH);
    if (access_by(0, end - LENGTH) != LENGTH || bytes[0] != 0xa5) fail("%s: no way to BAR0", argv[1]);

    uint64_t behind[] = {end, end + 4096, info.offset + (1ull << 39), info.offset + (1ull << 40), 0x7656ull << 48};
    for (unsigned n = 0; n < sizeof behind / sizeof *behind; n++) {
        memset(bytes, 0xff, LENGTH);
        if (access_by(1, behind[n]) >= 0) fail("%s: written at %#llx", argv[1], (unsigned long long)behind[n]);
        if (access_by(0, behind[n]) > 0) fail("%s: read at %#llx", argv[1], (unsigned long long)behind[n]);
    }
    if (!is_uring) map_by_int80(end);

    uint64_t before[] = {0, 2ull << 40, CONFIG, CONFIG + 192, info.offset - LENGTH};
    for (unsigned n = 0; n < sizeof before / sizeof *before; n++) {
        memset(bytes, 0xff, LENGTH);
        access_by(1, before[n]);
    }
    if (preadv(device, &vector, 1, (off_t)CONFIG) != sizeof config || memcmp(now, config, sizeof config))
        fail("config space is another");
    if (pwrite(device, config + 4, 2, (off_t)CONFIG + 4) != 2) die("COMMAND");
    if (pread(device, now, sizeof config, (off_t)CONFIG) != sizeof config || memcmp(now, config, sizeof config))
        fail("config space is shown as another");
    if (pread(device, now, sizeof bar, (off_t)info.offset) != sizeof bar || memcmp(now, bar, sizeof bar))
        fail("BAR0 is another");
    return 0;
}
