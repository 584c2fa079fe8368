/*
 * puppet: makes the system calls that it is told to, one line of stdin each, in the thread that the line names, and says
 * how each ended. A test so decides every argument of every call that a target makes.
 *
 *   stdin:   TAG THREAD SCRIPT          thread 0 is the main one, others are started when first named
 *   stdout:  TAG VALUE ERRNO [HEX]      of the script's last operation
 *
 * A SCRIPT is operations with ';' between them:
 *   new NAME SIZE               memory, with a page behind it that cannot be accessed; SIZE bytes end at that page
 *   put NAME OFFSET HEX
 *   get NAME OFFSET LENGTH      answers these bytes with VALUE and ERRNO of the operation before
 *   call NR ARG...              a system call; ARG is a number, $NAME[+OFFSET], or $ for the last operation's value
 *   loop COUNT NR ARG...        the same call until it fails; VALUE is how often it did not
 *   peek ADDRESS LENGTH         as get
 *   poke ADDRESS HEX
 *   handle SIGNAL               counts a signal; count SIGNAL says how many came
 *   storm SIGNAL COUNT GAP_US THREAD   sends a signal to a thread, again and again
 *   cancel THREAD               pthread_cancel, which takes effect at any time
 *   fork SCRIPT...              the rest of the line in a child process, which answers
 *   spawn SCRIPT...             the rest of the line in a new program that inherits the descriptors, which answers
 *   doomed US SIGNAL SCRIPT...  the rest of the line in a child that gets SIGNAL after US microseconds; VALUE is its wait
 *                               status. Its answer, if it comes that far, has no tag
 *   expect VALUE                ends the process with status 1 where the last operation's value is another
 *   sleep MICROSECONDS
 *
 * `puppet traced` runs it all in a child that is traced by its parent; `puppet script SCRIPT` does one script.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

#define MAX_THREADS 256
#define MAX_BUFFERS 256
#define MAX_LINE (4 << 20)
#define PAGE ((size_t)sysconf(_SC_PAGESIZE))

struct buffer {
    char name[32];
    uint8_t *at;
    size_t size;
};

struct result {
    long long value;
    int error;
    const uint8_t *bytes;
    size_t length;
};

struct worker {
    pthread_t thread;
    pid_t tid;
    int pipe[2];
    int started;
};

static struct buffer buffers[MAX_BUFFERS];
static int buffer_count;
static pthread_mutex_t buffer_lock = PTHREAD_MUTEX_INITIALIZER;
static struct worker workers[MAX_THREADS];
static volatile unsigned counted[65];
static const char *self;

static struct buffer *find(const char *name) {
    struct buffer *found = NULL;

    pthread_mutex_lock(&buffer_lock);
    for (int i = 0; i < buffer_count; i++)
        if (strcmp(buffers[i].name, name) == 0) found = &buffers[i];
    pthread_mutex_unlock(&buffer_lock);
    if (!found) {
        fprintf(stderr, "puppet: no buffer %s\n", name);
        exit(98);
    }
    return found;
}

static long long argument(char *text, long long last) {
    char *plus, *end;
    long long value;

    if (!text) return 0;
    if (text[0] == '$' && text[1] == '\0') return last;
    if (text[0] == '$') {
        uintptr_t offset = 0;

        plus = strchr(text, '+');
        if (plus) {
            *plus = '\0';
            offset = strtoull(plus + 1, NULL, 0);
        }
        return (long long)((uintptr_t)find(text + 1)->at + offset);
    }
    value = text[0] == '-' ? strtoll(text, &end, 0) : (long long)strtoull(text, &end, 0);
    if (*end != '\0') {
        fprintf(stderr, "puppet: not a number: %s\n", text);
        exit(98);
    }
    return value;
}

static void from_hex(uint8_t *to, const char *hex) {
    for (; hex[0] && hex[1]; hex += 2) {
        unsigned byte = 0;

        sscanf(hex, "%2x", &byte);
        *to++ = (uint8_t)byte;
    }
}

static void answer(const char *tag, const struct result *result) {
    size_t room = strlen(tag) + 64 + 2 * result->length;
    char *line = malloc(room);
    int length = snprintf(line, room, "%s %lld %d", tag, result->value, result->error);
    ssize_t written;

    if (result->length > 0) {
        line[length++] = ' ';
        for (size_t i = 0; i < result->length; i++) length += sprintf(line + length, "%02x", result->bytes[i]);
    }
    line[length++] = '\n';
    for (char *at = line; length > 0; at += written, length -= (int)written) {
        written = write(1, at, (size_t)length);
        if (written < 0 && errno != EINTR) _exit(97);
        if (written < 0) written = 0;
    }
    free(line);
}

static void count_signal(int signal) { counted[signal]++; }

static struct result run_script(char *script, const char *tag, int *silent);

static struct result in_child(char *script, const char *tag, int fresh, int *silent) {
    pid_t child = fork();
    struct result result = {0};
    int status;

    if (child == 0) {
        if (fresh) {
            execl("/proc/self/exe", self, "script", tag, script, (char *)NULL);
            _exit(96);
        } else {
            int quiet = 0;
            struct result mine = run_script(script, tag, &quiet);

            if (!quiet) answer(tag, &mine);
        }
        _exit(0);
    }
    while (waitpid(child, &status, __WALL) < 0 && errno == EINTR) continue;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) *silent = 1; /* the child has answered */
    result.value = -status;
    result.error = 255;
    return result;
}

static struct result doomed(char *rest) {
    char *end;
    unsigned long delay = strtoul(rest, &end, 0);
    int signal = (int)strtol(end, &end, 0), status = 0, quiet = 0;
    struct result result = {0};
    pid_t child = fork();

    if (child == 0) {
        run_script(end, "", &quiet);
        _exit(0);
    }
    for (double until = now_ns() + (double)delay * 1e3; now_ns() < until;) continue;
    kill(child, signal);
    if (signal == SIGSTOP) { /* for a moment only */
        usleep(1000);
        kill(child, SIGCONT);
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    result.value = status;
    return result;
}

static struct result one(char *op, char *rest, const struct result *before, const char *tag, int *silent) {
    struct result result = {0};
    long long last = before->value;
    char *save = NULL, *word[9] = {0};

    if (strcmp(op, "fork") == 0) return in_child(rest, tag, 0, silent);
    if (strcmp(op, "spawn") == 0) return in_child(rest, tag, 1, silent);
    if (strcmp(op, "doomed") == 0) return doomed(rest);
    for (int i = 0; i < 9; i++) {
        word[i] = strtok_r(i == 0 ? rest : NULL, " ", &save);
        if (!word[i]) break;
    }
    if (strcmp(op, "new") == 0) {
        size_t size = strtoull(word[1], NULL, 0), pages = (size + PAGE - 1) / PAGE * PAGE;
        uint8_t *at = mmap(NULL, pages + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        struct buffer *buffer;

        if (at == MAP_FAILED || mprotect(at + pages, PAGE, PROT_NONE) < 0) die("new");
        pthread_mutex_lock(&buffer_lock);
        if (buffer_count == MAX_BUFFERS) die("too many buffers");
        buffer = &buffers[buffer_count++];
        snprintf(buffer->name, sizeof buffer->name, "%s", word[0]);
        buffer->at = at + pages - size;
        buffer->size = size;
        pthread_mutex_unlock(&buffer_lock);
        result.value = (long long)(uintptr_t)buffer->at;
    } else if (strcmp(op, "put") == 0) {
        from_hex(find(word[0])->at + strtoull(word[1], NULL, 0), word[2]);
    } else if (strcmp(op, "get") == 0) {
        result = *before;
        result.bytes = find(word[0])->at + strtoull(word[1], NULL, 0);
        result.length = strtoull(word[2], NULL, 0);
    } else if (strcmp(op, "peek") == 0) {
        result = *before;
        result.bytes = (uint8_t *)(uintptr_t)argument(word[0], last);
        result.length = strtoull(word[1], NULL, 0);
    } else if (strcmp(op, "poke") == 0) {
        from_hex((uint8_t *)(uintptr_t)argument(word[0], last), word[1]);
    } else if (strcmp(op, "call") == 0 || strcmp(op, "loop") == 0) {
        int looping = op[0] == 'l';
        char **at = word + looping;
        long long count = looping ? strtoll(word[0], NULL, 0) : 1;
        long long value = 0, n[7];

        for (int i = 0; i < 7; i++) n[i] = argument(at[i], last);
        for (long long i = 0; i < count; i++) {
            errno = 0;
            value = syscall(n[0], n[1], n[2], n[3], n[4], n[5], n[6]);
            result.error = value == -1 ? errno : 0;
            if (result.error) break;
            result.value++;
        }
        if (!looping) result.value = value;
    } else if (strcmp(op, "handle") == 0) {
        struct sigaction action = {.sa_handler = count_signal, .sa_flags = SA_RESTART};

        result.value = sigaction((int)strtol(word[0], NULL, 0), &action, NULL);
    } else if (strcmp(op, "count") == 0) {
        result.value = counted[strtol(word[0], NULL, 0)];
    } else if (strcmp(op, "storm") == 0) {
        int signal = (int)strtol(word[0], NULL, 0), to = (int)strtol(word[3], NULL, 0);
        long count = strtol(word[1], NULL, 0), gap = strtol(word[2], NULL, 0);

        for (long i = 0; i < count; i++) {
            if (syscall(SYS_tgkill, getpid(), to == 0 ? getpid() : workers[to].tid, signal) < 0) break;
            result.value++;
            if (gap > 0) usleep((useconds_t)gap);
        }
    } else if (strcmp(op, "cancel") == 0) {
        result.value = pthread_cancel(workers[strtol(word[0], NULL, 0)].thread);
    } else if (strcmp(op, "expect") == 0) {
        result = *before;
        if (last != strtoll(word[0], NULL, 0)) _exit(1);
    } else if (strcmp(op, "sleep") == 0) {
        usleep((useconds_t)strtoul(word[0], NULL, 0));
    } else {
        fprintf(stderr, "puppet: no operation %s\n", op);
        exit(98);
    }
    return result;
}

/* `silent` is set where somebody else has answered. */
static struct result run_script(char *script, const char *tag, int *silent) {
    struct result result = {0};

    while (script) {
        char *op = script + strspn(script, " "), *end, *next = NULL, *rest;

        end = strpbrk(op, " ;");
        if (strncmp(op, "fork ", 5) != 0 && strncmp(op, "spawn ", 6) != 0 && strncmp(op, "doomed ", 7) != 0) {
            next = strchr(op, ';');
            if (next) *next++ = '\0';
        }
        rest = end && *end == ' ' ? end + 1 : op + strlen(op);
        if (end && *end == ' ') *end = '\0';
        result = one(op, rest, &result, tag, silent);
        script = next;
    }
    return result;
}

static void do_line(char *line) {
    char *tag = line, *thread = strchr(line, ' '), *script;
    int silent = 0;
    struct result result;

    *thread++ = '\0';
    script = strchr(thread, ' ') + 1;
    result = run_script(script, tag, &silent);
    if (!silent) answer(tag, &result);
}

static char *read_line(FILE *from) {
    char *line = NULL;
    size_t room = 0;
    ssize_t length;

    do {
        errno = 0;
        length = getline(&line, &room, from);
    } while (length < 0 && errno == EINTR);
    if (length <= 0) {
        free(line);
        return NULL;
    }
    line[length - 1] = '\0';
    return line;
}

static void *work(void *argument) {
    struct worker *worker = argument;
    char *line;

    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    __atomic_store_n(&worker->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
    for (;;) {
        ssize_t got = read(worker->pipe[0], &line, sizeof line);

        if (got == sizeof line) {
            do_line(line);
            free(line);
        } else if (got == 0) return NULL;
    }
}

static void hand_to(struct worker *worker, char *line) {
    if (!worker->started) {
        if (pipe(worker->pipe) < 0) die("pipe");
        if (pthread_create(&worker->thread, NULL, work, worker) != 0) die("pthread_create");
        while (__atomic_load_n(&worker->tid, __ATOMIC_SEQ_CST) == 0) usleep(100);
        worker->started = 1;
    }
    if (write(worker->pipe[1], &line, sizeof line) != sizeof line) die("write to a thread");
}

/* Lets the child run, and hands on what it was sent. Calls of the child's threads are of no interest. */
static int trace(pid_t child) {
    for (;;) {
        int status, signal;
        pid_t stopped = waitpid(-1, &status, __WALL);

        if (stopped < 0) return errno == ECHILD ? 0 : 95;
        if (stopped == child && WIFEXITED(status)) return WEXITSTATUS(status);
        if (stopped == child && WIFSIGNALED(status)) return 128 + WTERMSIG(status);
        if (!WIFSTOPPED(status)) continue;
        signal = WSTOPSIG(status);
        ptrace(PTRACE_CONT, stopped, NULL, (void *)(long)(signal == SIGTRAP || signal == SIGSTOP ? 0 : signal));
    }
}

int main(int argc, char **argv) {
    char *line;

    self = argv[0];
    if (argc == 4 && strcmp(argv[1], "script") == 0) {
        int silent = 0;
        struct result result = run_script(argv[3], argv[2], &silent);

        if (!silent) answer(argv[2], &result);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "traced") == 0) {
        pid_t child = fork();

        if (child > 0) return trace(child);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0) die("PTRACE_TRACEME");
        raise(SIGSTOP);
    }
    setvbuf(stdin, NULL, _IONBF, 0); /* what comes after a line that ends this program is for the next */
    while ((line = read_line(stdin))) {
        char *space = strchr(line, ' ');
        int thread = space ? atoi(space + 1) : -1;

        if (thread < 0 || thread >= MAX_THREADS || !strchr(space + 1, ' ')) {
            fprintf(stderr, "puppet: not a line: %s\n", line);
            return 98;
        }
        if (thread > 0) hand_to(&workers[thread], line);
        else {
            do_line(line);
            free(line);
        }
    }
    return 0;
}
