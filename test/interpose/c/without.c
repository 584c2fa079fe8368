/*
 * without WHAT... -- COMMAND...: runs a command as on a host that lacks something:
 *
 *   i386    32-bit system calls, on x86-64: they kill the process, as a kernel without them does
 *   NUMBER  the system call of that number: it fails with EPERM, as in a container
 */
#define _GNU_SOURCE
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN_IF(value, action) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1), BPF_STMT(BPF_RET | BPF_K, action)

static void add(struct sock_filter *program, unsigned short *length, const struct sock_filter *steps, int count) {
    memcpy(program + *length, steps, count * sizeof *steps);
    *length = (unsigned short)(*length + count);
}

int main(int argc, char **argv) {
    struct sock_filter program[256];
    struct sock_fprog filter = {.len = 0, .filter = program};
    const struct sock_filter nr = LOAD(nr), allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    int n;

    for (n = 1; n < argc && strcmp(argv[n], "--") != 0; n++) {
        if (n > 32) fail("too much to do without");
        if (strcmp(argv[n], "i386") == 0) {
            const struct sock_filter steps[] = {LOAD(arch), RETURN_IF(AUDIT_ARCH_I386, SECCOMP_RET_KILL_PROCESS)};
            add(program, &filter.len, steps, 3);
        } else {
            const struct sock_filter steps[] = {
                nr, RETURN_IF((unsigned)number_argument(argc, argv, n, 0), SECCOMP_RET_ERRNO | EPERM)};
            add(program, &filter.len, steps, 3);
        }
    }
    if (n + 1 >= argc) fail("usage: without WHAT... -- COMMAND...");
    add(program, &filter.len, &allow, 1);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) die("PR_SET_NO_NEW_PRIVS");
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) < 0) die("seccomp");
    execvp(argv[n + 1], argv + n + 1);
    die("%s", argv[n + 1]);
}
