/*
 * ambush PID kill-at-entry|kill-at-exit REQUEST: kills a process with SIGKILL at an ioctl of its own choosing, before the
 * kernel carries it out, or when it has been carried out and nothing else since. Ends when the process has been killed.
 *
 * ambush PID hold COUNT NR...: stops a process before the COUNTth of these system calls that it makes, says "held NR", and lets it
 * go on when stdin ends.
 *
 * Prints "ready" when it watches.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

/* linux/ptrace.h, 5.3; the C library's own header has it under another name */
struct syscall_info {
    uint8_t op; /* 1: entry, 2: exit */
    uint8_t pad[3];
    uint32_t arch;
    uint64_t instruction_pointer, stack_pointer;
    uint64_t nr, args[6]; /* of an entry */
};
#define GET_SYSCALL_INFO 0x420e

static pid_t victim;

/* The number of the system call that the victim is about to make, -1 where it comes out of one. */
static long long entered(struct syscall_info *info) {
    if (ptrace(GET_SYSCALL_INFO, victim, sizeof *info, info) <= 0) die("PTRACE_GET_SYSCALL_INFO");
    return info->op == 1 ? (long long)info->nr : -1;
}

/* Lets the victim run to its next stop at a system call; other stops are passed over. */
static void run_on(void) {
    long signal = 0;

    for (;;) {
        int status;

        if (ptrace(PTRACE_SYSCALL, victim, NULL, (void *)signal) < 0) die("PTRACE_SYSCALL");
        if (waitpid(victim, &status, __WALL) < 0 || !WIFSTOPPED(status)) fail("process %d has ended", victim);
        if (WSTOPSIG(status) == (SIGTRAP | 0x80)) return;
        signal = status >> 16 ? 0 : WSTOPSIG(status);
    }
}

static void kill_at(const char *when, uint32_t request) {
    int status, at_exit = strcmp(when, "kill-at-exit") == 0, inside = 0;
    struct syscall_info info;

    if (!at_exit && strcmp(when, "kill-at-entry") != 0) fail("no way to ambush: %s", when);
    do {
        run_on();
        inside = at_exit && inside ? 2 : entered(&info) == SYS_ioctl && (uint32_t)info.args[1] == request;
    } while (inside <= at_exit);
    if (kill(victim, SIGKILL) < 0) die("kill");
    while (waitpid(victim, &status, __WALL) == victim && !WIFSIGNALED(status)) continue;
}

static void hold_at(int count, char **numbers) {
    struct syscall_info info;
    char byte;

    for (;;) {
        long long nr;

        run_on();
        nr = entered(&info);
        for (char **number = numbers; *number; number++) {
            if (nr != atoll(*number) || --count > 0) continue;
            printf("held %lld\n", nr);
            fflush(stdout);
            while (read(0, &byte, 1) > 0) continue;
            if (ptrace(PTRACE_DETACH, victim, NULL, NULL) < 0) die("PTRACE_DETACH");
            return;
        }
    }
}

int main(int argc, char **argv) {
    int status;

    if (argc < 4) fail("ambush PID WHEN WHAT...");
    victim = atoi(argv[1]);
    if (ptrace(PTRACE_SEIZE, victim, NULL, (void *)PTRACE_O_TRACESYSGOOD) < 0) die("PTRACE_SEIZE");
    if (ptrace(PTRACE_INTERRUPT, victim, NULL, NULL) < 0) die("PTRACE_INTERRUPT");
    if (waitpid(victim, &status, __WALL) < 0 || !WIFSTOPPED(status)) fail("process %d has ended", victim);
    printf("ready\n");
    fflush(stdout);
    if (strcmp(argv[2], "hold") == 0) hold_at(atoi(argv[3]), argv + 4);
    else kill_at(argv[2], (uint32_t)strtoul(argv[3], NULL, 0));
    return 0;
}
