/* What every program here needs: one way to fail, one clock. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One clear line on stderr, with errno if there is one, and exit 1. */
__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...) {
    int error = errno;
    va_list args;

    fprintf(stderr, "%s: ", program_invocation_short_name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, error ? ": %s\n" : "\n", strerror(error));
    exit(1);
}

/* die() for a failure that no system call reported. */
#define fail(...) (errno = 0, die(__VA_ARGS__))

static inline double now_ns(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* A positive decimal argument, or the default if argv ends before it. */
static inline uint64_t number_argument(int argc, char **argv, int index, uint64_t otherwise) {
    char *end;
    unsigned long long value;

    if (index >= argc) return otherwise;
    value = strtoull(argv[index], &end, 10);
    if (value == 0 || *end != '\0') fail("argument %d is not a positive number: %s", index, argv[index]);
    return value;
}

#endif
