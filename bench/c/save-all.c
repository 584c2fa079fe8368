/*
 * save-all v2 [THREADS]: saves the stop-and-copy state of all devices at once through migration protocol v2, as QEMU 10 does with
 * multifd (hw/vfio/migration-multifd.c: vfio_multifd_save_complete_precopy_thread): each device is read by one of THREADS threads, by
 * default one for each, 1 MiB at a time. The devices are those of $VFIO_SHIM_DEVICES.
 *
 * save-all v1 [THREADS]: the same through migration protocol v1, of drivers whose data is read.
 *
 * save-all memory DEVICES BYTES CHUNK DELAY [THREADS]: the same loop where a v2 driver would cost nothing of its own: chunk N of a state
 * of BYTES can be read DELAY microseconds after chunk N - 1, of which two are kept ahead, and is then read() from memory.
 *
 * With CHECKSUM set in the environment the checksum of each device's state is told.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "touch.h"
#include "v1-client.h"

#define BUFFER (1 << 20)
#define MOST 64
#define A_WHILE 1 /* second: a VMM has run for that long, at least, when its devices are saved */

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
    struct v1_device v1;
    int data;         /* where its state is read from */
    double chunk_ns;  /* native: what each chunk takes */
    uint64_t chunk;   /* native: its bytes */
    struct consumer consumer;
};

static struct device devices[MOST];
static enum { V1, V2, MEMORY } kind;
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

static uint64_t v1_register(const struct device *device, uint64_t at) {
    uint64_t value;

    if (pread(device->fd, &value, sizeof value, (off_t)(device->v1.region + at)) != sizeof value)
        die("pread of register %llu", (unsigned long long)at);
    return value;
}

static void v1_state(const struct device *device, uint32_t state) {
    if (pwrite(device->fd, &state, sizeof state, (off_t)device->v1.region) != sizeof state)
        die("pwrite of device_state %u", state);
}

static void read_out_v1(struct device *device, unsigned char *buffer) {
    while (v1_register(device, V1_PENDING_BYTES) != 0) {
        uint64_t offset = v1_register(device, V1_DATA_OFFSET), size = v1_register(device, V1_DATA_SIZE);

        for (uint64_t done = 0; done < size;) {
            size_t want = size - done < BUFFER ? size - done : BUFFER;
            ssize_t length = pread(device->fd, buffer, want, (off_t)(device->v1.region + offset + done));

            if (length <= 0) die("pread of data");
            consume(&device->consumer, buffer, (size_t)length);
            done += (uint64_t)length;
        }
    }
}

static void *reader(void *argument) {
    unsigned first = (unsigned)(uintptr_t)argument;
    unsigned char *buffer = aligned_alloc(4096, BUFFER);

    if (!buffer) die("aligned_alloc");
    memset(buffer, 0, BUFFER);
    pthread_barrier_wait(&together);
    for (unsigned n = first; n < count; n += threads) (kind == V1 ? read_out_v1 : read_out)(&devices[n], buffer);
    free(buffer);
    return NULL;
}

static void stop(struct device *device) {
    if (kind == V1) v1_state(device, V1_SAVING);
    if (kind == V2) device->data = set_state(device->fd, STOP_COPY);
}

static void go_on(struct device *device) {
    if (kind == V1) v1_state(device, V1_STOP), v1_state(device, V1_RUNNING);
    if (kind == V2) set_state(device->fd, RUNNING);
}

int main(int argc, char **argv) {
    const char *const kinds[] = {"v1", "v2", "memory"};
    pthread_t readers[MOST];
    double start, stopped, end;
    uint64_t bytes = 0;
    char text[24];

    for (kind = V1; kind <= MEMORY && (argc < 2 || strcmp(argv[1], kinds[kind]) != 0); kind++) continue;
    if (kind > MEMORY) fail("v1, v2 or memory?");
    if (kind == MEMORY) {
        count = (unsigned)number_argument(argc, argv, 2, 1);
        if (count > MOST) fail("more than %d devices", MOST);
        make_sources(number_argument(argc, argv, 3, 1u << 28), number_argument(argc, argv, 4, 1u << 20),
                     (double)number_argument(argc, argv, 5, 1000) * 1e3);
    } else
        open_devices();
    for (unsigned n = 0; n < count && kind == V1; n++) devices[n].v1.fd = devices[n].fd, find_migration_region(&devices[n].v1);
    for (unsigned n = 0; n < count; n++) devices[n].consumer.checksum = getenv("CHECKSUM") != NULL;
    threads = (unsigned)number_argument(argc, argv, kind == MEMORY ? 6 : 2, count);
    if (threads > count) threads = count;
    if (pthread_barrier_init(&together, NULL, threads + 1)) fail("pthread_barrier_init");
    for (unsigned n = 0; n < threads; n++)
        if (pthread_create(&readers[n], NULL, reader, (void *)(uintptr_t)n)) fail("pthread_create");

    sleep(A_WHILE);
    start = now_ns();
    for (unsigned n = 0; n < count; n++) stop(&devices[n]);
    stopped = now_ns();
    pthread_barrier_wait(&together);
    for (unsigned n = 0; n < threads; n++) pthread_join(readers[n], NULL);
    end = now_ns();
    for (unsigned n = 0; n < count; n++) bytes += devices[n].consumer.bytes;
    for (unsigned n = 0; n < count; n++) go_on(&devices[n]);

    printf("{\"bench\":\"save-all\",\"devices\":%u,\"threads\":%u,\"bytes\":%llu,\"seconds\":%.6f,\"loopSeconds\":%.6f,\"checksums\":[",
           count, threads, (unsigned long long)bytes, (end - start) / 1e9, (end - stopped) / 1e9);
    for (unsigned n = 0; n < count; n++) printf("%s%s", n ? "," : "", consumer_checksum(&devices[n].consumer, text));
    printf("]}\n");
    return 0;
}
