/*
 * mapper ROUNDS: maps the data section again and again, while another thread sends signals, none to three for each mmap, at whatever
 * moment of it. They are of the kind that the kernel counts (signal(7): real-time signals), so that none may be missing in the end. The
 * handler is called while the thread's own mask is in force. A signal that comes before the supervisor has received the call ends it with
 * EINTR, as any call that is trapped (seccomp_unotify(2)); one that comes later does not. Prints one line of JSON.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#include "v1-client.h"

static struct v1_device device;
static pthread_t mapper;
static volatile sig_atomic_t handled;
static unsigned round_begun, sent, over;

static void handle(int signal) {
    (void)signal;
    handled++;
}

/* About so many times 50 nanoseconds. */
static void spin(unsigned long turns) {
    for (volatile unsigned long n = 0; n < turns * 20; n++) continue;
}

static void *sender(void *nothing) {
    unsigned seen = 0, seed = 1;

    (void)nothing;
    while (!__atomic_load_n(&over, __ATOMIC_ACQUIRE)) {
        unsigned now = __atomic_load_n(&round_begun, __ATOMIC_ACQUIRE);

        if (now == seen) continue;
        seen = now;
        for (unsigned left = now % 4; left > 0; left--) {
            spin((unsigned long)rand_r(&seed) % 4000);
            if (pthread_kill(mapper, SIGRTMIN)) fail("pthread_kill");
            __atomic_add_fetch(&sent, 1, __ATOMIC_RELEASE);
        }
    }
    return NULL;
}

static int descriptors(void) {
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;

    if (!directory) die("opendir /proc/self/fd");
    while (readdir(directory)) count++;
    closedir(directory);
    return count;
}

int main(int argc, char **argv) {
    unsigned rounds = (unsigned)number_argument(argc, argv, 1, 100);
    struct sigaction action = {.sa_handler = handle}; /* without SA_RESTART */
    unsigned failed = 0, wrong = 0, early = 0;
    unsigned char last = 0;
    sigset_t blocked;
    pthread_t thread;
    int before;

    device = open_v1_device();
    mapper = pthread_self();
    if (sigaction(SIGRTMIN, &action, NULL) < 0) die("sigaction");
    if (pthread_create(&thread, NULL, sender, NULL)) fail("pthread_create");
    before = descriptors();
    /* The sender misses rounds if it has no CPU: there are more until it has sent enough. */
    for (unsigned n = 1; n <= rounds || (n < 100 * rounds && __atomic_load_n(&sent, __ATOMIC_ACQUIRE) <= rounds / 10); n++) {
        off_t offset = (off_t)(device.region + device.data);
        unsigned char *at;

        __atomic_store_n(&round_begun, n, __ATOMIC_RELEASE);
        at = mmap(NULL, device.size, PROT_READ | PROT_WRITE, MAP_SHARED, device.fd, offset);
        if (at == MAP_FAILED) {
            if (errno == EINTR)
                early++;
            else
                failed++;
            continue;
        }
        if (at[0] != last) wrong++;
        last = at[0] = (unsigned char)n;
        munmap(at, device.size);
    }
    __atomic_store_n(&over, 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    if (sigprocmask(SIG_BLOCK, NULL, &blocked) < 0) die("sigprocmask");
    printf("{\"rounds\":%u,\"failed\":%u,\"early\":%u,\"wrong\":%u,\"sent\":%u,\"handled\":%d,\"descriptors\":%d,\"blocked\":%d}\n", rounds,
           failed, early, wrong, sent, (int)handled, descriptors() - before, sigismember(&blocked, SIGRTMIN));
    return 0;
}
