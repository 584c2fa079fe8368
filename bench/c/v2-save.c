/*
 * v2-save [THREADS]: saves the stop-and-copy state of all devices at once through migration protocol v2, as QEMU 10 does with
 * multifd (hw/vfio/migration-multifd.c: vfio_multifd_save_complete_precopy_thread): each device is read by one of THREADS threads, by
 * default one for each, 1 MiB at a time. The devices are those of $VFIO_SHIM_DEVICES.
 *
 * v2-save --native DEVICES BYTES CHUNK DELAY [THREADS]: the same loop where a driver of the kernel would cost nothing of its own: chunk
 * N of a state of BYTES can be read DELAY microseconds after chunk N - 1, of which two are kept ahead, and is then read() from memory.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "touch.h"

#define BUFFER (1 << 20)
#define MOST 64

/* linux/vfio.h of 5.18 on. */
#define FEATURE_SET (1u << 17)
#define FEATURE_MIG_DEVICE_STATE 2
#define STOP 1u
#define RUNNING 2u
#define STOP_COPY 3u

struct mig_state {
    struct vfio_device_feature feature;
    uint32_t state;
    int32_t data_fd;
};

struct device {
    int fd;           /* the device's */
    int data;         /* where its state is read from */
    double chunk_ns;  /* native: what each chunk takes */
    uint64_t chunk;   /* native: its bytes */
    struct consumer consumer;
};

static struct device devices[MOST];
static unsigned count, threads;
static pthread_barrier_t together;

static int set_state(int fd, uint32_t state) {
    struct mig_state set = {
        .feature = {.argsz = sizeof set, .flags = FEATURE_SET | FEATURE_MIG_DEVICE_STATE}, .state = state, .data_fd = -1};

    if (ioctl(fd, VFIO_DEVICE_FEATURE, &set) < 0) die("VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE %u", state);
    return set.data_fd;
}

static void open_devices(void) {
    const char *list = getenv("VFIO_SHIM_DEVICES");
    char path[256], name[256];
    int container = open("/dev/vfio/vfio", O_RDWR), used, set = 0;

    if (container < 0) die("open /dev/vfio/vfio");
    for (; list && sscanf(list, " %255[^= ]=%255[^ ]%n", path, name, &used) == 2; list += used, count++) {
        int group = open(path, O_RDWR);

        if (count == MOST) fail("more than %d devices", MOST);
        if (group < 0) die("open %s", path);
        if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) < 0) die("VFIO_GROUP_SET_CONTAINER");
        if (!set && ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0) die("VFIO_SET_IOMMU");
        set = 1;
        devices[count].fd = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name);
        if (devices[count].fd < 0) die("VFIO_GROUP_GET_DEVICE_FD %s", name);
    }
    if (count == 0) fail("VFIO_SHIM_DEVICES names no device");
}

static void make_sources(uint64_t bytes, uint64_t chunk, double chunk_ns) {
    unsigned char *buffer = calloc(1, BUFFER);
    int source = memfd_create("source", 0);
    char path[32];

    if (!buffer || source < 0) die("memfd_create");
    for (size_t at = 0; at < BUFFER; at++) buffer[at] = (unsigned char)(at * 37);
    for (uint64_t left = bytes; left > 0;) {
        size_t length = left < BUFFER ? left : BUFFER;

        if (write(source, buffer, length) != (ssize_t)length) die("write to the memfd");
        left -= length;
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", source);
    for (unsigned n = 0; n < count; n++) {
        devices[n].data = open(path, O_RDONLY);
        if (devices[n].data < 0) die("open %s", path);
        devices[n].chunk = chunk;
        devices[n].chunk_ns = chunk_ns;
    }
    free(buffer);
}

/* Waits for the chunk that begins at `done`: it is ready so long after the one before, of which two are kept ahead. */
static void wait_for_chunk(const struct device *device, double *ready, double taken) {
    double begins = *ready > taken ? *ready : taken;
    struct timespec until;

    *ready = begins + device->chunk_ns;
    until.tv_sec = (time_t)(*ready / 1e9);
    until.tv_nsec = (long)(*ready - (double)until.tv_sec * 1e9);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static void read_out(struct device *device, unsigned char *buffer) {
    double ready = now_ns(), taken[2] = {ready, ready};
    uint64_t in_chunk = 0;
    unsigned chunks = 0;
    ssize_t length;

    for (;;) {
        size_t want = BUFFER;

        if (device->chunk > 0) {
            if (in_chunk == 0) wait_for_chunk(device, &ready, taken[chunks % 2]);
            if (device->chunk - in_chunk < want) want = device->chunk - in_chunk;
        }
        length = read(device->data, buffer, want);
        if (length <= 0) break;
        consume(&device->consumer, buffer, (size_t)length);
        in_chunk += (uint64_t)length;
        if (device->chunk > 0 && in_chunk >= device->chunk) {
            in_chunk = 0;
            taken[chunks++ % 2] = now_ns();
        }
    }
    if (length < 0) die("read of a data fd");
}

static void *reader(void *argument) {
    unsigned first = (unsigned)(uintptr_t)argument;
    unsigned char *buffer = aligned_alloc(4096, BUFFER);

    if (!buffer) die("aligned_alloc");
    memset(buffer, 0, BUFFER);
    pthread_barrier_wait(&together);
    for (unsigned n = first; n < count; n += threads) read_out(&devices[n], buffer);
    free(buffer);
    return NULL;
}

int main(int argc, char **argv) {
    int native = argc > 1 && strcmp(argv[1], "--native") == 0;
    pthread_t readers[MOST];
    double start, stopped, end;
    uint64_t bytes = 0;

    if (native) {
        count = (unsigned)number_argument(argc, argv, 2, 1);
        if (count > MOST) fail("more than %d devices", MOST);
        make_sources(number_argument(argc, argv, 3, 1u << 28), number_argument(argc, argv, 4, 1u << 20),
                     (double)number_argument(argc, argv, 5, 1000) * 1e3);
    } else
        open_devices();
    threads = (unsigned)number_argument(argc, argv, native ? 6 : 1, count);
    if (threads > count) threads = count;
    if (pthread_barrier_init(&together, NULL, threads + 1)) fail("pthread_barrier_init");
    for (unsigned n = 0; n < threads; n++)
        if (pthread_create(&readers[n], NULL, reader, (void *)(uintptr_t)n)) fail("pthread_create");

    start = now_ns();
    if (!native)
        for (unsigned n = 0; n < count; n++) devices[n].data = set_state(devices[n].fd, STOP_COPY);
    stopped = now_ns();
    pthread_barrier_wait(&together);
    for (unsigned n = 0; n < threads; n++) pthread_join(readers[n], NULL);
    end = now_ns();
    for (unsigned n = 0; n < count; n++) bytes += devices[n].consumer.bytes;
    if (!native)
        for (unsigned n = 0; n < count; n++) set_state(devices[n].fd, RUNNING);

    printf("{\"bench\":\"v2-save\",\"devices\":%u,\"threads\":%u,\"bytes\":%llu,\"seconds\":%.6f,\"loopSeconds\":%.6f}\n", count,
           threads, (unsigned long long)bytes, (end - start) / 1e9, (end - stopped) / 1e9);
    return 0;
}
