import { readlinkSync } from 'node:fs';
import { errnoNumber, type ErrnoName } from '../../abi/errno.ts';
import { F_DUPFD, F_DUPFD_CLOEXEC, F_GETFL, O_ACCMODE, O_CLOEXEC, O_RDONLY, O_WRONLY } from '../../abi/fcntl.ts';
import { statusFlags, type OwnedFd } from '../../sys/fd.ts';
import { ELSEWHERE, inodeOfOwn } from '../../sys/file.ts';
import { arch } from '../../sys/libc.ts';
import { createSharedMemory } from '../../sys/memory.ts';
import { duplicateFd } from '../../sys/pidfd.ts';
import type { NotificationReply } from '../../sys/seccomp.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import { CONTINUE, type Call } from './call.ts';
import { polledNumber } from './polled-file.ts';
import type { FdWindow } from '../run/plan.ts';

/*
 * The files that stand in for data fds: shared memory that is empty, and open the wrong way round, or, of a driver that has a poll, an
 * epoll file (polled-file.ts). Neither can be read or written: one that ends up elsewhere (passed over a socket) fails with EBADF or
 * EINVAL, and never ends a stream.
 */

const FILE_NAME = 'vfio-shim-migration';
const numbers = arch.syscalls;
const dup2 = 'dup2' in numbers ? numbers.dup2 : -1;

/** As of a driver without poll: always ready. */
export function createStandIn(): OwnedFd {
  return createSharedMemory(FILE_NAME, 0);
}

/**
 * A descriptor of this process for a stand-in of the target's, of whichever session; `undefined` if the target's descriptor is
 * something else. It is taken once, and everything is found out about what was taken. Shared memory lies on a file system that
 * nobody can mount, and where only its name can be chosen: a target that imitates it has a stand-in without a session.
 */
export function takeStandIn(tid: number, fd: number): OwnedFd | undefined {
  const own = fd < 0 ? undefined : duplicateFd(tid, fd);
  if (own === undefined) return undefined;
  try {
    const isOurs =
      inodeOfOwn(own.number) === ELSEWHERE
        ? polledNumber(own.number) !== undefined
        : readlinkSync(`/proc/self/fd/${own.number}`).startsWith(`/memfd:${FILE_NAME}`);
    if (isOurs) return own;
  } catch (error) {
    own.close();
    throw error;
  }
  own.close();
  return undefined;
}

export function isStandIn(tid: number, fd: number): boolean {
  using own = takeStandIn(tid, fd);
  return own !== undefined;
}

/** The offset by which preadv2 and pwritev2 mean the file's own position. */
export const AT_POSITION = 2n ** 64n - 1n;

/** Calls on a data fd other than read, write and ioctl, and the place of a second descriptor among their arguments. */
const SECOND: ReadonlyMap<number, number> = new Map([
  [numbers.sendfile, 1],
  [numbers.splice, 2],
  [numbers.copy_file_range, 2],
]);

/**
 * What the kernel says if a driver has only read and write and its file is a stream (stream_open): the errors by which programs
 * fall back to read and write (fs/read_write.c, fs/splice.c of Linux 6.12).
 */
export function refuseOther(call: Call): number {
  const second = SECOND.get(call.nr);
  for (const argument of second === undefined ? [0] : [0, second]) {
    using own = takeStandIn(call.tid, call.s32(argument));
    if (own !== undefined) throw refuse(errnoOf(call, argument, statusFlags(own.number)), 'data fd: it is a stream');
  }
  return CONTINUE;
}

function errnoOf(call: Call, argument: number, flags: number): ErrnoName {
  const isRead = (asOfDataFd(flags) & O_ACCMODE) === O_RDONLY;
  switch (call.nr) {
    case numbers.splice:
      return isRead === (argument === 0) ? 'EINVAL' : 'EBADF';
    case numbers.sendfile:
      if (isRead !== (argument === 1)) return 'EBADF';
      return argument === 1 && call.arg(2) !== 0n ? 'ESPIPE' : 'EINVAL';
    case numbers.copy_file_range:
      return 'EINVAL';
    case numbers.preadv2:
    case numbers.pwritev2:
      return call.arg(3) === AT_POSITION ? 'EOPNOTSUPP' : 'ESPIPE'; // a flag that the driver would have to know
    default:
      return 'ESPIPE';
  }
}

/** dup, dup2, dup3 and fcntl on a stand-in: its duplicates get numbers within the window, where calls on them are trapped. */
export function duplicate(call: Call, listener: NotificationReply, window: FdWindow): number {
  const fd = call.s32(0);
  using own = takeStandIn(call.tid, fd);
  if (own === undefined) return CONTINUE;
  switch (call.nr) {
    case numbers.dup:
      return give(call, listener, own, freeNumber(call, window), false);
    case numbers.fcntl:
      if (call.u32(1) === F_GETFL) return asOfDataFd(statusFlags(own.number));
      if (call.u32(1) !== F_DUPFD && call.u32(1) !== F_DUPFD_CLOEXEC) return CONTINUE;
      return give(call, listener, own, freeNumber(call, window), call.u32(1) === F_DUPFD_CLOEXEC);
    case numbers.dup3:
    case dup2: {
      const wanted = call.s32(1);
      if (wanted === fd) return CONTINUE;
      if (wanted < window.first || wanted > window.last) {
        throw refuse('EINVAL', `data fd: a duplicate has to lie between ${window.first} and ${window.last}`);
      }
      return give(call, listener, own, wanted, call.nr === numbers.dup3 && (call.u32(2) & O_CLOEXEC) !== 0);
    }
    default:
      return CONTINUE;
  }
}

/**
 * The flags that the data fd would have. The access mode of a stand-in's file is the opposite of the session's; an epoll file, which has
 * both, stands for one that is read.
 */
function asOfDataFd(flags: number): number {
  return (flags & ~O_ACCMODE) | ((flags & O_ACCMODE) === O_RDONLY ? O_WRONLY : O_RDONLY);
}

/** The first number of the window that is free in the target. */
export function freeNumber({ tid }: Call, window: FdWindow): number {
  for (let fd = window.first; fd <= window.last; fd += 1) {
    using taken = duplicateFd(tid, fd);
    if (taken === undefined) return fd;
  }
  throw refuse('EMFILE', `data fd: all numbers from ${window.first} to ${window.last} are taken`);
}

/** Gives the target another descriptor of an open file, at a number. */
export function give(call: Call, listener: NotificationReply, file: OwnedFd, at: number, closeOnExec: boolean): number {
  const result = listener.addFd(call.id, file.number, { at, closeOnExec: closeOnExec ? O_CLOEXEC : 0 });
  if (result === -errnoNumber('EBADF')) {
    throw refuse('EMFILE', `data fd: RLIMIT_NOFILE of the target is below ${at + 1}`);
  }
  if (result < 0) throw refuse('EMFILE', 'data fd: the target takes no descriptor');
  return at;
}
