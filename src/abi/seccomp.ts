import { _IOW, _IOWR } from './ioctl.ts';
import { struct } from './struct.ts';

/** Modes of prctl(PR_GET_SECCOMP) and /proc/PID/status (linux/seccomp.h, 3.5). */
export const SECCOMP_MODE_DISABLED = 0;
export const SECCOMP_MODE_STRICT = 1;
export const SECCOMP_MODE_FILTER = 2;

/** Operations of seccomp(2) (linux/seccomp.h, 3.17; GET_ACTION_AVAIL 4.14, GET_NOTIF_SIZES 5.0). */
export const SECCOMP_SET_MODE_STRICT = 0;
export const SECCOMP_SET_MODE_FILTER = 1;
export const SECCOMP_GET_ACTION_AVAIL = 2;
export const SECCOMP_GET_NOTIF_SIZES = 3;

/** Flags of SECCOMP_SET_MODE_FILTER (linux/seccomp.h: NEW_LISTENER 5.0, TSYNC_ESRCH 5.7, WAIT_KILLABLE_RECV 5.19). */
export const SECCOMP_FILTER_FLAG_TSYNC = 1;
export const SECCOMP_FILTER_FLAG_LOG = 2;
export const SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4;
export const SECCOMP_FILTER_FLAG_NEW_LISTENER = 8;
export const SECCOMP_FILTER_FLAG_TSYNC_ESRCH = 0x10;
export const SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 0x20;

/** What a filter returns (linux/seccomp.h; USER_NOTIF 5.0). The lower 16 bits carry data, e.g. an errno. */
export const SECCOMP_RET_KILL_PROCESS = 0x8000_0000;
export const SECCOMP_RET_KILL_THREAD = 0;
export const SECCOMP_RET_TRAP = 0x0003_0000;
export const SECCOMP_RET_ERRNO = 0x0005_0000;
export const SECCOMP_RET_USER_NOTIF = 0x7fc0_0000;
export const SECCOMP_RET_TRACE = 0x7ff0_0000;
export const SECCOMP_RET_LOG = 0x7ffc_0000;
export const SECCOMP_RET_ALLOW = 0x7fff_0000;
export const SECCOMP_RET_ACTION_FULL = 0xffff_0000;
export const SECCOMP_RET_DATA = 0x0000_ffff;

/** `struct seccomp_data`: what a filter runs over (linux/seccomp.h, 3.5). `args0` is `args[0]`. */
export const seccomp_data = struct('seccomp_data', 64, {
  nr: ['s32', 0],
  arch: ['u32', 4],
  instruction_pointer: ['u64', 8],
  args0: ['u64', 16],
  args1: ['u64', 24],
  args2: ['u64', 32],
  args3: ['u64', 40],
  args4: ['u64', 48],
  args5: ['u64', 56],
});

/** `struct seccomp_notif_sizes`: what SECCOMP_GET_NOTIF_SIZES fills in (linux/seccomp.h, 5.0). */
export const seccomp_notif_sizes = struct('seccomp_notif_sizes', 6, {
  seccomp_notif: ['u16', 0],
  seccomp_notif_resp: ['u16', 2],
  seccomp_data: ['u16', 4],
});

/** `struct seccomp_notif` (linux/seccomp.h, 5.0); from `nr` on it is its `struct seccomp_data data`. Must be zero before RECV. */
export const seccomp_notif = struct('seccomp_notif', 80, {
  id: ['u64', 0],
  pid: ['u32', 8],
  flags: ['u32', 12],
  nr: ['s32', 16],
  arch: ['u32', 20],
  instruction_pointer: ['u64', 24],
  args0: ['u64', 32],
  args1: ['u64', 40],
  args2: ['u64', 48],
  args3: ['u64', 56],
  args4: ['u64', 64],
  args5: ['u64', 72],
});

/** `struct seccomp_notif_resp` (linux/seccomp.h, 5.0; CONTINUE 5.5). `error` is a negative errno. */
export const SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1;
export const seccomp_notif_resp = struct('seccomp_notif_resp', 24, {
  id: ['u64', 0],
  val: ['s64', 8],
  error: ['s32', 16],
  flags: ['u32', 20],
});

/** `struct seccomp_notif_addfd` and its flags (linux/seccomp.h, 5.9; SEND 5.14). */
export const SECCOMP_ADDFD_FLAG_SETFD = 1;
export const SECCOMP_ADDFD_FLAG_SEND = 2;
export const seccomp_notif_addfd = struct('seccomp_notif_addfd', 24, {
  id: ['u64', 0],
  flags: ['u32', 8],
  srcfd: ['u32', 12],
  newfd: ['u32', 16],
  newfd_flags: ['u32', 20],
});

/** Flag of SECCOMP_IOCTL_NOTIF_SET_FLAGS: wake the peer on this CPU (linux/seccomp.h, 6.6). */
export const SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP = 1;

/** Ioctls on the listener (linux/seccomp.h, 5.0; ADDFD 5.9, SET_FLAGS 6.6). */
export const SECCOMP_IOC_MAGIC = '!';
export const SECCOMP_IOCTL_NOTIF_RECV = _IOWR(SECCOMP_IOC_MAGIC, 0, seccomp_notif.size);
export const SECCOMP_IOCTL_NOTIF_SEND = _IOWR(SECCOMP_IOC_MAGIC, 1, seccomp_notif_resp.size);
export const SECCOMP_IOCTL_NOTIF_ID_VALID = _IOW(SECCOMP_IOC_MAGIC, 2, 8);
export const SECCOMP_IOCTL_NOTIF_ADDFD = _IOW(SECCOMP_IOC_MAGIC, 3, seccomp_notif_addfd.size);
export const SECCOMP_IOCTL_NOTIF_SET_FLAGS = _IOW(SECCOMP_IOC_MAGIC, 4, 8);
