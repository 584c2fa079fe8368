/*
 * read-source [BYTES [checksum]]: what it costs to read() as much data from memory, 1 MiB at a time, and to touch it as
 * v1-save does. The source is a memfd that was filled before the clock starts.
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "touch.h"

#define BUFFER (1 << 20)

static int filled_source(unsigned char *buffer, uint64_t bytes) {
    int fd = memfd_create("source", 0);
    uint64_t seed = 0x9e3779b97f4a7c15u;

    if (fd < 0) die("memfd_create");
    for (uint64_t left = bytes; left > 0;) {
        size_t length = left < BUFFER ? left : BUFFER;

        for (size_t at = 0; at < BUFFER; at += sizeof seed) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            memcpy(buffer + at, &seed, sizeof seed);
        }
        if (write(fd, buffer, length) != (ssize_t)length) die("write to the memfd");
        left -= length;
    }
    if (lseek(fd, 0, SEEK_SET) < 0) die("lseek");
    return fd;
}

int main(int argc, char **argv) {
    struct consumer consumer = {.checksum = argc > 2 && strcmp(argv[2], "checksum") == 0};
    uint64_t bytes = number_argument(argc, argv, 1, 1u << 30);
    unsigned char *buffer = aligned_alloc(4096, BUFFER);
    double start, end;
    ssize_t length;
    char text[24];
    int fd;

    if (!buffer) die("aligned_alloc");
    fd = filled_source(buffer, bytes);
    start = now_ns();
    while ((length = read(fd, buffer, BUFFER)) > 0) consume(&consumer, buffer, (size_t)length);
    end = now_ns();
    if (length < 0) die("read");
    if (consumer.bytes != bytes) fail("read %llu bytes", (unsigned long long)consumer.bytes);

    printf("{\"bench\":\"read-source\",\"bytes\":%llu,\"seconds\":%.6f,\"checksum\":%s}\n", (unsigned long long)bytes,
           (end - start) / 1e9, consumer_checksum(&consumer, text));
    return 0;
}
