/*
 * The measured loop of both sides of the trap benchmark: read the 4 bytes of device_state, as a VMM does.
 * trap-client runs it under `vfio-shim run`, null-supervisor under a supervisor that only answers.
 */
#ifndef BENCH_TRAP_LOOP_H
#define BENCH_TRAP_LOOP_H

#include <sys/types.h>
#include <unistd.h>

#include "common.h"

/* By then V8 has compiled what a call takes: a supervisor that records has more of that. */
#define TRAP_WARM_UP 20000

static inline void trap_calls(int fd, off_t offset, uint64_t count, uint32_t *value) {
    for (uint64_t i = 0; i < count; i++) {
        ssize_t length = pread(fd, value, sizeof *value, offset);

        if (length < 0) die("pread of device_state");
        if (length != sizeof *value) fail("pread of device_state: %zd bytes", length);
    }
}

/* Nanoseconds per call; `value` is what the last one read. */
static inline double trap_loop(int fd, off_t offset, uint64_t count, uint32_t *value) {
    double start;

    trap_calls(fd, offset, TRAP_WARM_UP, value);
    start = now_ns();
    trap_calls(fd, offset, count, value);
    return (now_ns() - start) / (double)count;
}

#endif
