/*
 * untrapped [CALLS [REPETITIONS]]: nanoseconds per system call that no supervisor has to do with: getppid, a pread of
 * one byte at offset 0 of a regular file, an ioctl(FIONREAD) on a pipe, a pread of four bytes of a device's config space and of its BAR0, and
 * mapping a file to be written, and unmapping it. The kinds take turns in each repetition. Where there is no device, a file of shared memory stands for it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "v1-client.h"

#define MAX_REPETITIONS 100
#define KINDS 6

static int file, pipe_ends[2], shared, device;
static off_t config_space, bar0;

static void call_getppid(void) { (void)getppid(); }

static void call_pread(void) {
    char byte;

    if (pread(file, &byte, 1, 0) != 1) die("pread");
}

static void call_ioctl(void) {
    int available;

    if (ioctl(pipe_ends[0], FIONREAD, &available) < 0) die("ioctl(FIONREAD)");
}

static void call_config(void) {
    uint32_t id;

    if (pread(device, &id, sizeof id, config_space) != sizeof id) die("pread of config space");
}

static void call_bar0(void) {
    uint32_t word;

    if (pread(device, &word, sizeof word, bar0) != sizeof word) die("pread of BAR0");
}

static void call_mmap(void) {
    void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);

    if (at == MAP_FAILED) die("mmap");
    munmap(at, 4096);
}

static const struct {
    const char *name;
    void (*call)(void);
} kinds[KINDS] = {{"getppid", call_getppid}, {"pread", call_pread}, {"ioctl", call_ioctl},
                  {"config", call_config},   {"bar0", call_bar0},   {"mmap", call_mmap}};

static void open_device(void) {
    struct v1_device opened;

    device = shared;
    if (!getenv("VFIO_SHIM_DEVICES")) return;
    opened = open_v1_device();
    device = opened.fd;
    bar0 = (off_t)opened.bar0;
    config_space = (off_t)region_info(device, VFIO_PCI_CONFIG_REGION_INDEX)->offset;
}

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
    shared = memfd_create("shared", 0);
    if (shared < 0 || ftruncate(shared, 4096) < 0) die("shared memory");
    open_device();

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
