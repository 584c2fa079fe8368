import { constants, openSync, readFileSync } from 'node:fs';
import {
  AT_EMPTY_PATH,
  AT_STATX_DONT_SYNC,
  F_GETFL,
  LOCK_EX,
  LOCK_NB,
  LOCK_SH,
  STATX_INO,
  STATX_TYPE,
  statx,
} from '../abi/fcntl.ts';
import { OwnedFd } from './fd.ts';
import { addressOf, cString, failedWith, syscall, syscallError, trySyscall } from './libc.ts';
import { createSharedMemory } from './memory.ts';
import { duplicateFd } from './pidfd.ts';

// SAFETY: they live as long as this module, and one thread uses them, to the end of each look
const noPath = cString('');
const found = new Uint8Array(statx.size);
const foundAt = addressOf(found);
const view = statx.view(found);
const { stx_ino } = statx.fields;
const ino = new DataView(found.buffer, stx_ino[1]);

/** Looks at the file behind a descriptor of this process, as it is known here: no file server is asked. */
function look(fd: number): void {
  syscall(
    `descriptor ${fd}`,
    'statx',
    fd,
    addressOf(noPath),
    AT_EMPTY_PATH | AT_STATX_DONT_SYNC,
    STATX_INO | STATX_TYPE,
    foundAt,
  );
}

/** The file system that shared memory lies on: inode numbers say something only within it. */
const sharedMemory = ((): { major: number; minor: number } => {
  using file = createSharedMemory('vfio-shim-probe', 0);
  look(file.number);
  return { major: view.stx_dev_major, minor: view.stx_dev_minor };
})();

/** The inode number of a file that is not shared memory: none. */
export const ELSEWHERE = 0;

/** The inode of the shared memory behind a descriptor of this process, `ELSEWHERE` if the file is something else. */
export function inodeOfOwn(fd: number): number {
  look(fd);
  if (view.stx_dev_major !== sharedMemory.major || view.stx_dev_minor !== sharedMemory.minor) return ELSEWHERE;
  return ino.getUint32(4, true) * 2 ** 32 + ino.getUint32(0, true);
}

/**
 * The inode of the shared memory behind a descriptor of another process, by a thread of it: `ELSEWHERE` if the file is
 * something else, `undefined` if it has no such descriptor. The descriptor is taken once, and looked at here, by `find`. Throws if that
 * is not allowed: what cannot be told is not another file.
 */
export function inodeOf(tid: number, fd: number, find = inodeOfOwn): number | undefined {
  using own = fd < 0 ? undefined : duplicateFd(tid, fd);
  return own === undefined ? undefined : find(own.number);
}

/** True for files of no type, which the kernel makes for calls as epoll_create(2), all with one inode. */
export function isAnonymous(fd: number): boolean {
  look(fd);
  return (view.stx_mode & constants.S_IFMT) === 0;
}

const MEMORY_TYPES: ReadonlySet<number> = new Set([constants.S_IFREG, constants.S_IFCHR, constants.S_IFBLK]);

/** True for a file, or for a device that may have memory: for no socket, pipe, directory or counter. */
export function isMemoryFile(fd: number): boolean {
  look(fd);
  return MEMORY_TYPES.has(view.stx_mode & constants.S_IFMT);
}

/** The flags of the open file behind a descriptor of another process (fcntl(2): F_GETFL); `undefined` if it has no such descriptor. */
export function openFlagsOf(tid: number, fd: number): number | undefined {
  using own = fd < 0 ? undefined : duplicateFd(tid, fd);
  return own === undefined ? undefined : syscall(`descriptor ${fd}: flags`, 'fcntl', own.number, F_GETFL);
}

/** The device behind a descriptor of this process, as `major:minor`; `undefined` if it is no character device. */
export function characterDevice(fd: number): string | undefined {
  look(fd);
  return (view.stx_mode & constants.S_IFMT) === constants.S_IFCHR
    ? `${view.stx_rdev_major}:${view.stx_rdev_minor}`
    : undefined;
}

/** Whether an open file of this process has a lock of its own, by flock(2) (proc_pid_fdinfo(5)). */
export function hasLock(fd: number): boolean {
  return readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1').includes('FLOCK');
}

/** Opens a directory, to be listed. */
export function openDirectory(path: string): OwnedFd {
  return new OwnedFd(openSync(path, constants.O_RDONLY | constants.O_DIRECTORY));
}

/** Opens shared memory of this process anew, with a position, flags and locks of its own. */
export function openAnew(fd: number, flags: number): OwnedFd {
  return new OwnedFd(openSync(`/proc/self/fd/${fd}`, flags));
}

/**
 * Locks an open file (flock(2)): the lock lasts as long as any process has a descriptor of it, or one is on its way to a
 * process, and needs nobody to watch over it. False if another open file of the same memory has a lock that excludes it.
 */
export function lockFile(fd: number, kind: 'shared' | 'exclusive'): boolean {
  const result = trySyscall('flock', fd, (kind === 'shared' ? LOCK_SH : LOCK_EX) | LOCK_NB);
  if (result >= 0) return true;
  if (failedWith(result, 'EAGAIN')) return false;
  throw syscallError(`descriptor ${fd}: lock`, 'flock', -result);
}
