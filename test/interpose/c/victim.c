/*
 * victim FILTER: installs a seccomp filter (struct sock_filter, as they are) in a process, which makes the system
 * calls that stdin lists, one a line:
 *
 *   NR ARG0 ... ARG5      by the machine's own instruction
 *   i386 NR ARG0 ... ARG4 by int 0x80, on x86-64
 *
 * Each trapped call is printed by another process as "trapped NR ARG0 ... ARG5" and answered with EXDEV, which none of them
 * gives by itself; then the process prints "ERRNO".
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

static struct sock_filter program[4096];

static void send_fd(int socket, int fd) {
    char byte = 0, control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec vector = {&byte, 1};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (sendmsg(socket, &message, 0) != 1) die("sendmsg");
}

static int receive_fd(int socket) {
    char byte, control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec vector = {&byte, 1};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    int fd;

    if (recvmsg(socket, &message, 0) != 1 || !CMSG_FIRSTHDR(&message)) die("recvmsg");
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

static long call_i386(const unsigned long long *n) {
#ifdef __x86_64__
    long result;

    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(n[0]), "b"(n[1]), "c"(n[2]), "d"(n[3]), "S"(n[4]), "D"(n[5])
                     : "memory", "r8", "r9", "r10", "r11");
    return result;
#else
    (void)n;
    return -ENOSYS;
#endif
}

static void be_victim(int socket, unsigned short length) {
    struct sock_fprog filter = {.len = length, .filter = program};
    unsigned long long n[7];
    char line[512];
    int listener;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) die("PR_SET_NO_NEW_PRIVS");
    listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter);
    if (listener < 0) die("seccomp");
    send_fd(socket, listener);
    close(listener);
    while (fgets(line, sizeof line, stdin)) {
        int foreign = strncmp(line, "i386 ", 5) == 0;
        long result;

        memset(n, 0, sizeof n);
        sscanf(line + (foreign ? 5 : 0), "%llu %llu %llu %llu %llu %llu %llu", n, n + 1, n + 2, n + 3, n + 4, n + 5, n + 6);
        errno = 0;
        result = foreign ? call_i386(n) : syscall((long)n[0], n[1], n[2], n[3], n[4], n[5], n[6]);
        if (foreign && result < 0 && result > -4096) errno = (int)-result;
        printf("%d\n", errno);
        fflush(stdout);
    }
    _exit(0);
}

static void answer(int listener) {
    struct seccomp_notif request;
    struct seccomp_notif_resp response = {.error = -EXDEV};

    memset(&request, 0, sizeof request);
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request) < 0) return;
    printf("trapped %d", request.data.nr);
    for (int i = 0; i < 6; i++) printf(" %llu", (unsigned long long)request.data.args[i]);
    printf("\n");
    fflush(stdout);
    response.id = request.id;
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response) < 0 && errno != ENOENT) die("SECCOMP_IOCTL_NOTIF_SEND");
}

/* So that stdio does not ask what its files are, which is a call of its own. */
static char input[65536], output[65536];

int main(int argc, char **argv) {
    int sockets[2], file = argc == 2 ? open(argv[1], O_RDONLY) : -1, listener, status;
    ssize_t length = read(file, program, sizeof program);
    pid_t child, supervisor;

    setvbuf(stdin, input, _IOFBF, sizeof input);
    setvbuf(stdout, output, _IOFBF, sizeof output);
    if (length < 0) die("the filter");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets) < 0) die("socketpair");
    supervisor = fork();
    if (supervisor == 0) {
        close(0);
        listener = receive_fd(sockets[0]);
        for (;;) answer(listener);
    }
    child = fork();
    if (child == 0) be_victim(sockets[1], (unsigned short)(length / (ssize_t)sizeof *program));
    waitpid(child, &status, 0);
    kill(supervisor, SIGKILL);
    waitpid(supervisor, NULL, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
