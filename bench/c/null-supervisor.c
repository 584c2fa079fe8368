/*
 * null-supervisor [CALLS]: nanoseconds per trapped pread under a supervisor that does nothing but answer: the price
 * of seccomp user notification itself. A forked child filters itself and calls; the parent polls, receives and sends,
 * with synchronous wake-ups if the kernel has them (6.6).
 */
#define _GNU_SOURCE
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "trap-loop.h"

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "x86-64 and aarch64 only"
#endif

#define VFIO_FIRST 0x3b64
#define VFIO_LAST 0x3b7d
/* The offsets whose bits 48 to 63 are 0x40 are trapped; region indexes (index << 40) stay far below. */
#define WINDOW_MASK 0xffff0000u
#define WINDOW_HIGH 0x00400000u
#define WINDOW ((off_t)WINDOW_HIGH << 32)

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (field))
#define ARGUMENT_LOW(i) (offsetof(struct seccomp_data, args) + 8 * (i))
#define ARGUMENT_HIGH(i) (ARGUMENT_LOW(i) + 4)
#define JUMP(test, value, yes, no) BPF_JUMP(BPF_JMP | (test) | BPF_K, (value), (yes), (no))

static int install_filter(void) {
    struct sock_filter code[] = {
        LOAD(offsetof(struct seccomp_data, arch)),
        JUMP(BPF_JEQ, NATIVE_ARCH, 0, 11),
        LOAD(offsetof(struct seccomp_data, nr)),
        JUMP(BPF_JEQ, __NR_ioctl, 2, 0),
        JUMP(BPF_JEQ, __NR_pread64, 4, 0),
        JUMP(BPF_JEQ, __NR_pwrite64, 3, 7),
        LOAD(ARGUMENT_LOW(1)),
        JUMP(BPF_JGE, VFIO_FIRST, 0, 5),
        JUMP(BPF_JGT, VFIO_LAST, 4, 3),
        LOAD(ARGUMENT_HIGH(3)),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, WINDOW_MASK),
        JUMP(BPF_JEQ, WINDOW_HIGH, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    unsigned long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    int listener;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) die("prctl(PR_SET_NO_NEW_PRIVS)");
    listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    if (listener < 0) die("seccomp");
    return listener;
}

union fd_message {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
};

static void send_fd(int channel, int fd) {
    union fd_message control = {0};
    struct iovec data = {"", 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};

    control.header = (struct cmsghdr){CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    if (sendmsg(channel, &message, 0) != 1) die("sendmsg");
}

static int receive_fd(int channel) {
    union fd_message control;
    char byte;
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    int fd;

    if (recvmsg(channel, &message, MSG_CMSG_CLOEXEC) != 1) fail("the child sent no listener");
    if (control.header.cmsg_type != SCM_RIGHTS) fail("the child's message holds no fd");
    memcpy(&fd, CMSG_DATA(&control.header), sizeof fd);
    return fd;
}

static void target(int channel, uint64_t calls) {
    int fd = memfd_create("null-device", 0);
    int listener = install_filter();
    uint32_t state = 0;
    char go;
    double ns;

    send_fd(channel, listener);
    close(listener);
    if (read(channel, &go, 1) != 1) fail("the supervisor is gone");
    ns = trap_loop(fd, WINDOW, calls, &state);
    printf("{\"bench\":\"null-supervisor\",\"calls\":%llu,\"nsPerCall\":%.1f}\n", (unsigned long long)calls, ns);
    exit(0);
}

/* Puts four bytes where the call wants what it reads, as every supervisor has to that does more than answer. */
static void write_answer(const struct seccomp_notif *call) {
    uint32_t state = 1;
    struct iovec local = {&state, sizeof state};
    struct iovec remote = {(void *)(uintptr_t)call->data.args[1], sizeof state};

    if (process_vm_writev(call->pid, &local, 1, &remote, 1, 0) != sizeof state) die("process_vm_writev");
}

/* Answers every notification with 4, the length of the read, until the filter's last task is gone. */
static void supervise(int listener, int writes) {
    struct pollfd ready = {listener, POLLIN, 0};
    struct seccomp_notif call;
    struct seccomp_notif_resp answer;

    for (;;) {
        if (poll(&ready, 1, -1) < 0) die("poll");
        if (!(ready.revents & POLLIN)) return;
        memset(&call, 0, sizeof call);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) < 0) {
            if (errno == ENOENT || errno == EINTR) continue;
            die("SECCOMP_IOCTL_NOTIF_RECV");
        }
        if (writes) write_answer(&call);
        answer = (struct seccomp_notif_resp){.id = call.id, .val = 4};
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer) < 0 && errno != ENOENT) die("SECCOMP_IOCTL_NOTIF_SEND");
    }
}

int main(int argc, char **argv) {
    uint64_t calls = number_argument(argc, argv, 1, 100000);
    int channel[2], listener, status;
    pid_t child;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) < 0) die("socketpair");
    child = fork();
    if (child < 0) die("fork");
    if (child == 0) {
        close(channel[0]);
        target(channel[1], calls);
    }
    close(channel[1]);
    listener = receive_fd(channel[0]);
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP) < 0)
        fprintf(stderr, "null-supervisor: no synchronous wake-up: %s\n", strerror(errno));
    if (write(channel[0], "", 1) != 1) die("write");
    supervise(listener, argc > 2 && strcmp(argv[2], "write") == 0);
    if (waitpid(child, &status, 0) < 0) die("waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
