import { struct } from './struct.ts';

/** Flags of open(2) with the same number on x86-64 and aarch64 (asm-generic/fcntl.h); the others are in arch.ts. */
export const O_RDONLY = 0;
export const O_WRONLY = 1;
export const O_RDWR = 2;
export const O_ACCMODE = 3;
export const O_CREAT = 0o100;
export const O_EXCL = 0o200;
export const O_TRUNC = 0o1000;
export const O_APPEND = 0o2000;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
export const O_PATH = 0o10000000;

/** The directory descriptor that stands for the working directory (linux/fcntl.h). */
export const AT_FDCWD = -100;

/** Commands of fcntl(2) (asm-generic/fcntl.h, linux/fcntl.h). */
export const F_DUPFD = 0;
export const F_GETFD = 1;
export const F_SETFD = 2;
export const F_GETFL = 3;
export const F_SETFL = 4;
export const F_SETSIG = 10;
export const F_GETSIG = 11;
export const F_SETOWN_EX = 15;
export const F_GETOWN_EX = 16;
export const F_DUPFD_CLOEXEC = 1030;
export const F_SETPIPE_SZ = 1031;
export const F_GETPIPE_SZ = 1032;
export const F_ADD_SEALS = 1033;
export const F_GET_SEALS = 1034;
export const FD_CLOEXEC = 1;

/** `struct f_owner_ex`, and the kind of owner that is a process (asm-generic/fcntl.h). */
export const f_owner_ex = struct('f_owner_ex', 8, { type: ['s32', 0], pid: ['s32', 4] });
export const F_OWNER_PID = 1;

/** Operations of flock(2) (asm-generic/fcntl.h). */
export const LOCK_SH = 1;
export const LOCK_EX = 2;
export const LOCK_NB = 4;
export const LOCK_UN = 8;

/** Seals of a memfd (linux/fcntl.h, 3.17; FUTURE_WRITE 5.1). */
export const F_SEAL_SEAL = 1;
export const F_SEAL_SHRINK = 2;
export const F_SEAL_GROW = 4;
export const F_SEAL_WRITE = 8;
export const F_SEAL_FUTURE_WRITE = 0x10;

/** `lseek` (linux/fs.h): from where a position counts; and where the next data or hole of a sparse file begins. */
export const SEEK_SET = 0;
export const SEEK_CUR = 1;
export const SEEK_END = 2;
export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;

/** Flag of pwritev2(2) (linux/fs.h, 4.14): an `EAGAIN` rather than a wait. */
export const RWF_NOWAIT = 8;

/** Flags of close_range(2) (linux/close_range.h, 5.9 and 5.11). */
export const CLOSE_RANGE_UNSHARE = 2;
export const CLOSE_RANGE_CLOEXEC = 4;

/** Flags of eventfd2(2) (linux/eventfd.h). */
export const EFD_SEMAPHORE = 1;
export const EFD_NONBLOCK = 0o4000;
export const EFD_CLOEXEC = 0o2000000;

/** Events of poll(2) and `struct pollfd` (asm-generic/poll.h). */
export const POLLIN = 1;
export const POLLPRI = 2;
export const POLLOUT = 4;
export const POLLERR = 8;
export const POLLHUP = 0x10;
export const POLLNVAL = 0x20;
export const pollfd = struct('pollfd', 8, { fd: ['s32', 0], events: ['u16', 4], revents: ['u16', 6] });

/** statx(2): of the descriptor itself, and without asking a file server (linux/fcntl.h, linux/stat.h). */
export const AT_EMPTY_PATH = 0x1000;
export const AT_STATX_DONT_SYNC = 0x4000;
export const STATX_TYPE = 1;
export const STATX_INO = 0x100;
/** `struct statx` (linux/stat.h), as far as it says which file it is. */
export const statx = struct('statx', 256, {
  stx_mask: ['u32', 0],
  stx_blksize: ['u32', 4],
  stx_nlink: ['u32', 16],
  stx_mode: ['u16', 28],
  stx_ino: ['u64', 32],
  stx_rdev_major: ['u32', 128],
  stx_rdev_minor: ['u32', 132],
  stx_dev_major: ['u32', 136],
  stx_dev_minor: ['u32', 140],
});
