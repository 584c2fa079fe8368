/** Options of prctl(2) (linux/prctl.h; SET_PTRACER 3.4, only answered if Yama is built in). */
export const PR_SET_PDEATHSIG = 1;
export const PR_GET_DUMPABLE = 3;
export const PR_SET_DUMPABLE = 4;
export const PR_SET_NAME = 15;
export const PR_GET_SECCOMP = 21;
export const PR_SET_CHILD_SUBREAPER = 36;
export const PR_SET_NO_NEW_PRIVS = 38;
export const PR_GET_NO_NEW_PRIVS = 39;
export const PR_SET_PTRACER = 0x5961_6d61;
/** Second argument of PR_SET_PTRACER: any process may trace. All ones, an unsigned long. */
export const PR_SET_PTRACER_ANY = 0xffff_ffff_ffff_ffffn;

/** Options of waitpid(2) and waitid(2) (linux/wait.h; P_PIDFD 5.4). */
export const WNOHANG = 1;
export const WUNTRACED = 2;
export const WEXITED = 4;
export const WCONTINUED = 8;
export const WNOWAIT = 0x0100_0000;
/** Wait for threads that were created by clone(2) too: needed for the threads of a traced process. */
// oxlint-disable-next-line no-underscore-dangle -- the kernel's name, verbatim
export const __WALL = 0x4000_0000;
export const P_PID = 1;
export const P_PIDFD = 3;

/** Flag of pidfd_open(2): a thread's id is allowed (linux/pidfd.h, 6.9). */
export const PIDFD_THREAD = 0o200;

/** Resources of prlimit64(2): the largest file, and one more than the highest descriptor (asm-generic/resource.h). */
export const RLIMIT_FSIZE = 1;
export const RLIMIT_NOFILE = 7;

/** Capabilities that allow to lock memory beyond the limit, and to trace any process (linux/capability.h). */
export const CAP_IPC_LOCK = 14;
export const CAP_SYS_PTRACE = 19;
export const CAP_SYS_RESOURCE = 24;
