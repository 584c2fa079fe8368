/*
 * migrant ROLE FILE [KEY=VALUE...]: a VMM that speaks migration protocol v1 saves its device into FILE or loads it from
 * there, and kills the supervisor that answers it, over and over.
 *
 *   ROLE     save or load
 *   map      1: the data section is mapped; 0: read and written by pread and pwrite
 *   at_map   1: the mmap is a call at which the supervisor may be killed
 *   rounds   save: how often the pre-copy data is read before the device is stopped; the guest writes in between
 *   kill     none; between: before a trapped call; during: while one is being served
 *   every    at each so many-th call; first: the number of the first such call
 *   spin     kill=during: the most microseconds between a call's beginning and the kill, which is left to chance
 *   again    1: the successor is killed too, while it starts
 *   kills    no more than these
 *
 * Supervisors are found in /proc: the process with this one's VFIO_SHIM_TEST_BED whose command line has "supervisor-main".
 * FILE holds each buffer behind its size in 8 bytes. Prints one line of JSON.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "v1-client.h"

#define MARK "VFIO_SHIM_TEST_BED"

static struct {
    const char *role, *file, *kill;
    int map, at_map, rounds, every, first, spin, again, kills;
} option = {.kill = "none", .map = 1, .rounds = 3, .every = 1, .first = 0, .spin = 40, .again = 0, .kills = 40};

static struct v1_device device;
static unsigned char *section;
static int killed, calls;
static pid_t last_killed;
/* Between the calling thread and the killer: nobody is found, a supervisor is found, the call has begun. */
static enum { SEEKING, FOUND, BEGUN } stage;

static int slurp(const char *path, char *into, int room) {
    int fd = open(path, O_RDONLY), length;

    if (fd < 0) return -1;
    length = (int)read(fd, into, (size_t)room - 1);
    close(fd);
    if (length >= 0) into[length] = '\0';
    return length;
}

static int contains(const char *bytes, int length, const char *what) {
    return memmem(bytes, (size_t)length, what, strlen(what)) != NULL;
}

static pid_t find_supervisor(void) {
    static char text[1 << 17];
    char path[300], mark[200];
    pid_t found = 0;
    DIR *proc = opendir("/proc");
    struct dirent *entry;

    if (!proc) die("/proc");
    snprintf(mark, sizeof mark, "%s=%s", MARK, getenv(MARK) ? getenv(MARK) : "?");
    while (!found && (entry = readdir(proc))) {
        pid_t pid = (pid_t)atoi(entry->d_name);
        int length;

        if (pid <= 0 || pid == getpid()) continue;
        snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
        length = slurp(path, text, sizeof text);
        if (length <= 0 || !contains(text, length, "supervisor-main")) continue;
        snprintf(path, sizeof path, "/proc/%d/environ", pid);
        length = slurp(path, text, sizeof text);
        if (length > 0 && contains(text, length, mark)) found = pid;
    }
    closedir(proc);
    return found;
}

/* The one that was killed last may take a moment to go. */
static pid_t await_supervisor(void) {
    for (;;) {
        pid_t pid = find_supervisor();

        if (pid > 0 && pid != last_killed) return pid;
        usleep(1000);
    }
}

static void kill_supervisor(pid_t pid) {
    static unsigned seed = 1;

    for (int times = option.again ? 2 : 1; times > 0; times--) {
        if (kill(pid, SIGKILL) < 0) return;
        last_killed = pid;
        killed++;
        if (times == 1) return;
        pid = await_supervisor();
        usleep(rand_r(&seed) % 200000);
    }
}

/* Kills while a call is being served: how long after its beginning is left to chance. */
static void *killer(void *unused) {
    unsigned seed = (unsigned)getpid();

    (void)unused;
    while (killed < option.kills) {
        pid_t pid = await_supervisor();
        double delay = rand_r(&seed) % (option.spin * 1000);

        __atomic_store_n(&stage, FOUND, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&stage, __ATOMIC_SEQ_CST) != BEGUN) continue;
        for (double until = now_ns() + delay; now_ns() < until;) continue;
        kill_supervisor(pid);
        __atomic_store_n(&stage, SEEKING, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

static void begin(void) {
    int chosen = ++calls % option.every == option.first % option.every && killed < option.kills;

    if (chosen && strcmp(option.kill, "between") == 0) kill_supervisor(await_supervisor());
    if (!chosen || strcmp(option.kill, "during") != 0) return;
    while (__atomic_load_n(&stage, __ATOMIC_SEQ_CST) != FOUND)
        if (killed >= option.kills) return;
    __atomic_store_n(&stage, BEGUN, __ATOMIC_SEQ_CST);
}

static void do_read(uint64_t offset, void *into, size_t size) {
    ssize_t length;

    begin();
    length = pread(device.fd, into, size, (off_t)(device.region + offset));
    if (length < 0) die("call %d: pread of %zu bytes at %llu", calls, size, (unsigned long long)offset);
    if ((size_t)length != size) fail("call %d: pread at %llu: %zd bytes", calls, (unsigned long long)offset, length);
}

static void do_write(uint64_t offset, const void *from, size_t size) {
    ssize_t length;

    begin();
    length = pwrite(device.fd, from, size, (off_t)(device.region + offset));
    if (length < 0) die("call %d: pwrite of %zu bytes at %llu", calls, size, (unsigned long long)offset);
    if ((size_t)length != size) fail("call %d: pwrite at %llu: %zd bytes", calls, (unsigned long long)offset, length);
}

static uint64_t read_register(uint64_t offset) {
    uint64_t value;

    do_read(offset, &value, sizeof value);
    return value;
}

static void set_state(uint32_t state) {
    uint32_t now;

    do_write(V1_DEVICE_STATE, &state, sizeof state);
    do_read(V1_DEVICE_STATE, &now, sizeof now);
    if (now != state) fail("call %d: device_state is %u, not %u", calls, now, state);
}

/* A supervisor that is killed meanwhile may leave an error, and the data section is then read and written. */
static void map_section(void) {
    sigset_t blocked;
    void *at;

    if (!option.map) return;
    if (option.at_map) begin();
    at = mmap(NULL, device.size, PROT_READ | PROT_WRITE, MAP_SHARED, device.fd, (off_t)(device.region + device.data));
    if (at == NULL) fail("mmap of the data section gave 0");
    if (sigprocmask(SIG_BLOCK, NULL, &blocked) < 0) die("sigprocmask");
    for (int signal = 1; signal < 64; signal++)
        if (sigismember(&blocked, signal) == 1) fail("signal %d is blocked after mmap", signal);
    if (at != MAP_FAILED) section = at;
    else if (strcmp(option.kill, "none") == 0) die("mmap of the data section");
}

static uint64_t save_data(FILE *file, uint64_t limit) {
    unsigned char *copy = malloc(device.size);
    uint64_t bytes = 0;

    if (!copy) die("malloc");
    while (bytes < limit && read_register(V1_PENDING_BYTES) != 0) {
        uint64_t offset = read_register(V1_DATA_OFFSET), size = read_register(V1_DATA_SIZE);

        if (size == 0) break;
        if (offset < device.data || size > device.size || offset - device.data > device.size - size)
            fail("a buffer outside the data section");
        if (section) memcpy(copy, section + (offset - device.data), size);
        else do_read(offset, copy, size);
        if (fwrite(&size, sizeof size, 1, file) != 1 || fwrite(copy, 1, size, file) != size) die("write");
        bytes += size;
    }
    free(copy);
    return bytes;
}

static uint64_t save(FILE *file) {
    unsigned char guest[64];
    uint64_t bytes = 0;

    set_state(V1_RUNNING | V1_SAVING);
    for (int round = 0; round < option.rounds; round++) {
        bytes += save_data(file, UINT64_MAX);
        memset(guest, round + 1, sizeof guest);
        if (pwrite(device.fd, guest, sizeof guest, (off_t)device.bar0 + 64 * round) != sizeof guest) die("the guest's write");
    }
    set_state(V1_SAVING);
    bytes += save_data(file, UINT64_MAX);
    set_state(V1_STOP);
    return bytes;
}

static uint64_t load(FILE *file) {
    unsigned char *copy = malloc(device.size);
    uint64_t bytes = 0, size;

    if (!copy) die("malloc");
    set_state(V1_RESUMING);
    while (fread(&size, sizeof size, 1, file) == 1) {
        while (size > 0) {
            uint64_t piece = size < device.size ? size : device.size, offset = read_register(V1_DATA_OFFSET);

            if (fread(copy, 1, piece, file) != piece) die("read");
            if (section) memcpy(section + (offset - device.data), copy, piece);
            else do_write(offset, copy, piece);
            do_write(V1_DATA_SIZE, &piece, sizeof piece);
            bytes += piece;
            size -= piece;
        }
    }
    set_state(V1_RUNNING);
    free(copy);
    return bytes;
}

static void parse(const char *text) {
    const char *value = strchr(text, '=');
    const struct {
        const char *key;
        int *into;
    } numbers[] = {{"map", &option.map}, {"at_map", &option.at_map}, {"rounds", &option.rounds}, {"every", &option.every}, {"first", &option.first},
                   {"spin", &option.spin}, {"again", &option.again}, {"kills", &option.kills}};

    if (!value) fail("not KEY=VALUE: %s", text);
    if (strncmp(text, "kill=", 5) == 0) {
        option.kill = value + 1;
        return;
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (strncmp(text, numbers[i].key, (size_t)(value - text)) == 0 && !numbers[i].key[value - text]) {
            *numbers[i].into = atoi(value + 1);
            return;
        }
    }
    fail("no option: %s", text);
}

int main(int argc, char **argv) {
    FILE *file;
    uint64_t bytes;
    pthread_t thread;

    if (argc < 3) fail("migrant ROLE FILE [KEY=VALUE...]");
    option.role = argv[1];
    option.file = argv[2];
    for (int i = 3; i < argc; i++) parse(argv[i]);
    file = fopen(option.file, strcmp(option.role, "save") == 0 ? "wb" : "rb");
    if (!file) die("%s", option.file);

    device = open_v1_device();
    if (strcmp(option.kill, "during") == 0 && pthread_create(&thread, NULL, killer, NULL) != 0) die("pthread_create");
    map_section();
    bytes = strcmp(option.role, "save") == 0 ? save(file) : load(file);
    if (fclose(file) != 0) die("%s", option.file);
    printf("{\"bytes\":%llu,\"calls\":%d,\"kills\":%d,\"mapped\":%d}\n", (unsigned long long)bytes, calls, killed, section != NULL);
    return 0;
}
