/*
 * drafter GENERATION ROLE FILE [break]: a VMM of a draft saves its device into FILE or loads it from there, access by access as the patches
 * for QEMU of October 2018 (GENERATION 2018) and February 2019 (2019) have it.
 *
 *   ROLE   save, paused (save a device of a VM that does not run), or load
 *   break  save: a first migration is cancelled in pre-copy; load: a first one fails after its first buffer
 *
 * Says "open" when it has the device, and begins when stdin ends. FILE holds each buffer behind its size in 8 bytes. Prints one line of JSON. Every loop has an end: one that takes longer fails.
 */
#define _GNU_SOURCE
#define V1_REGION_TYPE (1u << 30)
#include <sys/mman.h>

#include "v1-client.h"

#define ENOUGH 100000
#define PAGE 4096u

/* Offsets of the registers: November 2018, which is packed, and February 2019. */
enum { STATE = 0, PRECOPY_ONLY = 4, COMPATIBLE = 12, POSTCOPY_ONLY = 20, THRESHOLD = 28, OFFSET_18 = 36, SIZE_18 = 44 };
enum { START_ADDR = 52, TOTAL = 60, COPIED = 68 };
enum { PENDING_BYTES = 8, OFFSET_19 = 16, SIZE_19 = 24, START_PFN = 32, PAGE_SIZE_19 = 40, TOTAL_PFNS = 48, COPIED_PFNS = 56 };
/* device_state of 2018 */
enum { RUNNING = 1, SETUP, PRECOPY, STOPNCOPY, SAVE_COMPLETED, RESUME, RESUME_COMPLETED, FAILED, CANCELLED };

static struct v1_device device;
static unsigned char *section;
static int generation;
static unsigned long long precopy_only, compatible, postcopy_only, most_compatible, bytes, buffers, dirty, told;

static uint64_t get(uint64_t at) {
    uint64_t value = 0;

    if (pread(device.fd, &value, 8, (off_t)(device.region + at)) != 8) die("read of the register at %d", (int)at);
    return value;
}

static void put(uint64_t at, uint64_t value) {
    if (pwrite(device.fd, &value, 8, (off_t)(device.region + at)) != 8) die("write of the register at %d", (int)at);
}

static void set_state(uint32_t state) {
    if (pwrite(device.fd, &state, 4, (off_t)device.region) != 4) die("device_state %u", state);
}

static void bounded(unsigned long long n, const char *what) {
    if (n > ENOUGH) fail("%s does not end", what);
}

static void keep(FILE *file, const unsigned char *from, uint64_t size) {
    if (fwrite(&size, 8, 1, file) != 1 || fwrite(from, 1, size, file) != size) die("write of the file");
    bytes += size;
    buffers += 1;
}

static void update_pending(void) {
    if (generation == 2019) {
        told = get(PENDING_BYTES);
        return;
    }
    put(THRESHOLD, 1 << 20);
    precopy_only = get(PRECOPY_ONLY);
    compatible = get(COMPATIBLE);
    postcopy_only = get(POSTCOPY_ONLY);
    if (compatible > most_compatible) most_compatible = compatible;
}

static uint64_t save_buffer(FILE *file) {
    uint64_t offset = get(generation == 2018 ? OFFSET_18 : OFFSET_19), size, room;

    if (offset < device.data || offset > device.data + device.size) fail("data_offset %llu", (unsigned long long)offset);
    room = device.data + device.size - offset;
    if (generation == 2018) size = get(SIZE_18);
    else size = told < room ? told : room; /* data_size is never read */
    if (size > room) fail("a buffer of %llu bytes", (unsigned long long)size);
    if (size > 0) keep(file, section + (offset - device.data), size);
    told -= generation == 2019 ? size : 0;
    return size;
}

/* vfio_get_dirty_page_list, of the first GiB */
static void read_dirty_pages(void) {
    uint64_t total = (1u << 30) / PAGE, count = 0, copied, n = 0;

    put(generation == 2018 ? START_ADDR : START_PFN, 0);
    if (generation == 2019) put(PAGE_SIZE_19, PAGE);
    put(generation == 2018 ? TOTAL : TOTAL_PFNS, total);
    do {
        bounded(++n, "the loop over dirty pages");
        copied = get(generation == 2018 ? COPIED : COPIED_PFNS);
        if (copied == 0) break;
        if (copied > total - count || (copied + 63) / 64 * 8 + 8 > device.size) fail("%llu pages", (unsigned long long)copied);
        for (uint64_t page = 0; page < copied; page++) dirty += section[page / 8] >> page % 8 & 1;
        count += copied;
    } while (count < total);
}

static void pre_copy(FILE *file, unsigned long long most) {
    for (unsigned long long n = 0; n < most; n++) {
        bounded(n, "pre-copy");
        update_pending();
        if ((generation == 2018 ? precopy_only : told) == 0) break;
        if (save_buffer(file) == 0) break;
        if (n == 0) read_dirty_pages();
    }
}

static void save(FILE *file, int paused) {
    unsigned long long n = 0;

    if (generation == 2018) {
        set_state(SETUP);
        set_state(paused ? STOPNCOPY : PRECOPY);
        if (!paused) pre_copy(file, ENOUGH);
        read_dirty_pages();
        if (!paused) set_state(STOPNCOPY);
        do {
            bounded(++n, "stop-and-copy");
            update_pending();
            if (postcopy_only > 0 && save_buffer(file) == 0) break;
        } while (compatible + postcopy_only > 0);
        set_state(SAVE_COMPLETED);
        return;
    }
    set_state(paused ? 2 : 3);
    if (!paused) pre_copy(file, ENOUGH);
    read_dirty_pages();
    set_state(2);
    update_pending();
    while (told > 0) {
        bounded(++n, "stop-and-copy");
        if (save_buffer(file) == 0) break;
        if (told == 0) update_pending();
    }
    set_state(0);
}

static void cancelled(void) {
    FILE *file = fopen("/dev/null", "w");

    if (!file) die("/dev/null");
    if (generation == 2018) set_state(SETUP);
    set_state(generation == 2018 ? PRECOPY : 3);
    pre_copy(file, 2);
    if (generation == 2018) set_state(CANCELLED);
    set_state(RUNNING);
    fclose(file);
    bytes = buffers = dirty = 0;
}

static void load(FILE *file, unsigned long long most) {
    uint64_t size;

    set_state(generation == 2018 ? RESUME : 0);
    while (most-- > 0 && fread(&size, 8, 1, file) == 1) {
        if (generation == 2019) set_state(0); /* load_state is entered */
        if (size > device.size || fread(section, 1, size, file) != size) fail("a buffer of %llu bytes", (unsigned long long)size);
        put(generation == 2018 ? OFFSET_18 : OFFSET_19, device.data);
        put(generation == 2018 ? SIZE_18 : SIZE_19, size);
        bytes += size;
        buffers += 1;
    }
}

int main(int argc, char **argv) {
    FILE *file;
    int saves, breaks = argc > 4 && !strcmp(argv[4], "break");

    if (argc < 4) fail("drafter GENERATION ROLE FILE [break]");
    generation = atoi(argv[1]);
    saves = strcmp(argv[2], "load") != 0;
    device = open_v1_device();
    if (device.size == 0) fail("the migration region is not mappable");
    section = mmap(NULL, device.size, PROT_READ | PROT_WRITE, MAP_SHARED, device.fd, (off_t)(device.region + device.data));
    if (section == MAP_FAILED) die("mmap of the data section");
    printf("open\n");
    fflush(stdout);
    while (getchar() != EOF) continue;
    file = fopen(argv[3], saves ? "w" : "r");
    if (!file) die("%s", argv[3]);
    if (saves) {
        if (breaks) cancelled();
        save(file, !strcmp(argv[2], "paused"));
    } else {
        if (breaks) {
            load(file, 1);
            /* 2019 has no word for that: a device with a part of a state does not run, and is reset by whoever opens it next */
            if (generation == 2018) set_state(FAILED);
            else if (ioctl(device.fd, VFIO_DEVICE_RESET) < 0) die("VFIO_DEVICE_RESET");
            set_state(RUNNING);
            rewind(file);
            bytes = buffers = 0;
        }
        load(file, ENOUGH);
        if (generation == 2018) set_state(RESUME_COMPLETED);
    }
    set_state(RUNNING);
    if (fclose(file)) die("%s", argv[3]);
    printf("{\"bytes\":%llu,\"buffers\":%llu,\"compatible\":%llu,\"dirty\":%llu}\n", bytes, buffers, most_compatible, dirty);
    return 0;
}
