/*
 * assassin PID REQUEST WHEN: kills a process with SIGKILL at an ioctl of its own choosing: REQUEST is the ioctl's number,
 * WHEN is "entry", before the kernel carries it out, or "exit", when it has been carried out and nothing else since.
 *
 * Prints "ready" when it watches, and ends with status 0 when the process has been killed.
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

static int is_asked_for(uint32_t request) {
    struct syscall_info info;

    if (ptrace(GET_SYSCALL_INFO, victim, sizeof info, &info) <= 0) die("PTRACE_GET_SYSCALL_INFO");
    return info.op == 1 && info.nr == SYS_ioctl && (uint32_t)info.args[1] == request;
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

int main(int argc, char **argv) {
    uint32_t request;
    int status, at_exit, inside = 0;

    if (argc != 4) fail("assassin PID REQUEST WHEN");
    victim = atoi(argv[1]);
    request = (uint32_t)strtoul(argv[2], NULL, 0);
    at_exit = strcmp(argv[3], "exit") == 0;
    if (ptrace(PTRACE_SEIZE, victim, NULL, (void *)PTRACE_O_TRACESYSGOOD) < 0) die("PTRACE_SEIZE");
    if (ptrace(PTRACE_INTERRUPT, victim, NULL, NULL) < 0) die("PTRACE_INTERRUPT");
    if (waitpid(victim, &status, __WALL) < 0 || !WIFSTOPPED(status)) fail("process %d has ended", victim);
    printf("ready\n");
    fflush(stdout);
    do {
        run_on();
        inside = at_exit && inside ? 2 : is_asked_for(request);
    } while (inside <= at_exit);
    if (kill(victim, SIGKILL) < 0) die("kill");
    while (waitpid(victim, &status, __WALL) == victim && !WIFSIGNALED(status)) continue;
    return 0;
}
