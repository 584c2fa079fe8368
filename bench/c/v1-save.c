/*
 * v1-save [checksum]: saves the device's stop-and-copy state through migration protocol v1, with the calls of QEMU 7.2
 * (hw/vfio/migration.c: vfio_save_setup, vfio_migration_set_state, vfio_save_complete_precopy): device_state is read,
 * changed and written; then pending_bytes, data_offset and data_size are read 8 bytes at a time, the data through mmap.
 * As a VMM does, it has run for a while by then, and pre-copy comes first. The clock starts when the guest would stop.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "touch.h"
#include "v1-client.h"

#define A_WHILE 1 /* second */

static uint64_t read_register(const struct v1_device *device, uint64_t offset) {
    uint64_t value;
    ssize_t length = pread(device->fd, &value, sizeof value, (off_t)(device->region + offset));

    if (length < 0) die("pread of register %llu", (unsigned long long)offset);
    if (length != sizeof value) fail("pread of register %llu: %zd bytes", (unsigned long long)offset, length);
    return value;
}

static void change_state(const struct v1_device *device, uint32_t keep, uint32_t add) {
    off_t offset = (off_t)(device->region + V1_DEVICE_STATE);
    uint32_t state;

    if (pread(device->fd, &state, sizeof state, offset) != sizeof state) die("pread of device_state");
    state = (state & keep) | add;
    if (pwrite(device->fd, &state, sizeof state, offset) != sizeof state) die("pwrite of device_state %u", state);
}

static const unsigned char *map_data(const struct v1_device *device) {
    void *data;

    if (device->size == 0) fail("the data section is not mappable");
    data = mmap(NULL, device->size, PROT_READ | PROT_WRITE, MAP_SHARED, device->fd, (off_t)(device->region + device->data));
    if (data == MAP_FAILED) die("mmap of the data section");
    return data;
}

/* Returns how many buffers there were. */
static uint64_t save(const struct v1_device *device, const unsigned char *data, struct consumer *consumer) {
    uint64_t buffers = 0;

    while (read_register(device, V1_PENDING_BYTES) != 0) {
        uint64_t offset = read_register(device, V1_DATA_OFFSET);
        uint64_t size = read_register(device, V1_DATA_SIZE);

        if (size == 0) break;
        if (offset < device->data || size > device->size || offset - device->data > device->size - size)
            fail("a buffer outside the data section: offset %llu, size %llu", (unsigned long long)offset,
                 (unsigned long long)size);
        consume(consumer, data + (offset - device->data), size);
        buffers++;
    }
    return buffers;
}

int main(int argc, char **argv) {
    struct consumer consumer = {.checksum = argc > 1 && strcmp(argv[1], "checksum") == 0};
    struct v1_device device = open_v1_device();
    const unsigned char *data = map_data(&device);
    double start, saving, saved, end;
    uint64_t buffers;
    char text[24];

    sleep(A_WHILE);
    change_state(&device, ~0u, V1_SAVING);
    read_register(&device, V1_PENDING_BYTES);

    start = now_ns();
    change_state(&device, ~V1_RUNNING, V1_SAVING);
    saving = now_ns();
    buffers = save(&device, data, &consumer);
    saved = now_ns();
    change_state(&device, ~V1_SAVING, 0);
    end = now_ns();

    printf("{\"bench\":\"v1-save\",\"bytes\":%llu,\"seconds\":%.6f,\"loopSeconds\":%.6f,\"buffers\":%llu,\"checksum\":%s}\n",
           (unsigned long long)consumer.bytes, (end - start) / 1e9, (saved - saving) / 1e9, (unsigned long long)buffers,
           consumer_checksum(&consumer, text));
    return 0;
}
