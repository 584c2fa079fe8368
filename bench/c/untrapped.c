/*
 * untrapped [CALLS [REPETITIONS]]: nanoseconds per system call that no supervisor has to do with: getppid, a pread of
 * one byte at offset 0 of a regular file, an ioctl(FIONREAD) on a pipe. The kinds take turns in each repetition.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common.h"

#define MAX_REPETITIONS 100
#define KINDS 3

static int file, pipe_ends[2];

static void call_getppid(void) { (void)getppid(); }

static void call_pread(void) {
    char byte;

    if (pread(file, &byte, 1, 0) != 1) die("pread");
}

static void call_ioctl(void) {
    int available;

    if (ioctl(pipe_ends[0], FIONREAD, &available) < 0) die("ioctl(FIONREAD)");
}

static const struct {
    const char *name;
    void (*call)(void);
} kinds[KINDS] = {{"getppid", call_getppid}, {"pread", call_pread}, {"ioctl", call_ioctl}};

static double measure(void (*call)(void), uint64_t calls) {
    double start = now_ns();

    for (uint64_t i = 0; i < calls; i++) call();
    return (now_ns() - start) / (double)calls;
}

int main(int argc, char **argv) {
    uint64_t calls = number_argument(argc, argv, 1, 200000);
    uint64_t repetitions = number_argument(argc, argv, 2, 9);
    double ns[KINDS][MAX_REPETITIONS];

    if (repetitions > MAX_REPETITIONS) fail("more than %d repetitions", MAX_REPETITIONS);
    file = open("/proc/self/exe", O_RDONLY); /* this program: a regular file, in the page cache */
    if (file < 0) die("open /proc/self/exe");
    if (pipe(pipe_ends) < 0) die("pipe");

    for (int kind = 0; kind < KINDS; kind++) measure(kinds[kind].call, calls / 10);
    for (uint64_t i = 0; i < repetitions; i++)
        for (int kind = 0; kind < KINDS; kind++) ns[kind][i] = measure(kinds[kind].call, calls);

    printf("{\"bench\":\"untrapped\"");
    for (int kind = 0; kind < KINDS; kind++) {
        printf(",\"%s\":[", kinds[kind].name);
        for (uint64_t i = 0; i < repetitions; i++) printf("%s%.2f", i ? "," : "", ns[kind][i]);
        printf("]");
    }
    printf("}\n");
    return 0;
}
