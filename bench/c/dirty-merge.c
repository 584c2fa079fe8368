/*
 * dirty-merge COUNT PAGES: what it takes at least to answer a VMM's question for dirty pages from a container's bitmap and a device's log, for
 * a range of so many pages: the VMM's bitmap is read from its memory, the container's and the log are put into bitmaps of ours, what both have
 * is left, and written to the VMM's memory.
 */
#define _GNU_SOURCE
#include "common.h"

#include <sys/uio.h>
#include <unistd.h>

static void move(ssize_t (*call)(pid_t, const struct iovec *, unsigned long, const struct iovec *, unsigned long, unsigned long),
                 void *local, void *remote, size_t size) {
    struct iovec here = { local, size };
    struct iovec there = { remote, size };

    if (call(getpid(), &here, 1, &there, 1, 0) != (ssize_t)size) die("process_vm");
}

int main(int argc, char **argv) {
    uint64_t count = number_argument(argc, argv, 1, 100);
    uint64_t pages = number_argument(argc, argv, 2, 1u << 24);
    size_t size = (pages + 63) / 64 * 8;
    uint64_t *user = calloc(1, size), *answer = calloc(1, size), *log = calloc(1, size);
    uint64_t *container = malloc(size), *logged = calloc(1, size);
    double start;

    if (!user || !answer || !log || !container || !logged) die("memory");
    memset(container, 0xff, size);
    for (size_t n = 0; n < size / 8; n += 97) logged[n] = UINT64_C(0x8000000000000001);
    start = now_ns();
    for (uint64_t n = 0; n < count; n += 1) {
        move(process_vm_readv, answer, user, size);
        memcpy(answer, container, size);
        memset(log, 0, size);
        memcpy(log, logged, size);
        for (size_t word = 0; word < size / 8; word += 1) answer[word] &= log[word];
        move(process_vm_writev, answer, user, size);
    }
    printf("{\"bench\":\"dirty-merge\",\"ns\":%.0f,\"first\":%d}\n", (now_ns() - start) / (double)count, user[0] != 0);
    return 0;
}
