import { readFileSync } from 'node:fs';
import { errnoNumber } from '../abi/errno.ts';
import { PIDFD_THREAD } from '../abi/prctl.ts';
import { OwnedFd } from './fd.ts';
import { failedWith, syscall, syscallError, trySyscall } from './libc.ts';

const GONE = -errnoNumber('ESRCH');

/**
 * The thread that was asked for last: most calls come from the same one. Its pidfd stays its own, and is of no other thread that
 * gets its number later.
 */
let last: { readonly tid: number; readonly pidfd: OwnedFd } | undefined;

/**
 * A descriptor of this process for the open file behind a descriptor of another, named by any of its threads (Linux 5.6).
 * `undefined` where it has no such descriptor. Throws `ERR_SYSCALL`: `EPERM` where this process may not trace that one,
 * `ESRCH` where it is gone.
 */
export function duplicateFd(tid: number, fd: number): OwnedFd | undefined {
  let result = last?.tid === tid ? trySyscall('pidfd_getfd', last.pidfd.number, fd, 0) : GONE;
  if (failedWith(result, 'ESRCH')) {
    last?.pidfd.close();
    last = undefined;
    const pidfd = openThread(tid);
    if (pidfd < 0) throw syscallError(`process ${tid}`, 'pidfd_open', -pidfd);
    last = { tid, pidfd: new OwnedFd(pidfd) };
    result = trySyscall('pidfd_getfd', pidfd, fd, 0);
  }
  if (result >= 0) return new OwnedFd(result);
  if (failedWith(result, 'EBADF')) return undefined;
  throw syscallError(`descriptor ${fd} of process ${tid}`, 'pidfd_getfd', -result);
}

/** A pidfd of a thread's process; from Linux 6.9 on of the thread itself, which is as good and needs no look into /proc. */
export function openThread(tid: number): number {
  const leader = trySyscall('pidfd_open', tid, 0);
  if (leader >= 0) return leader;
  const thread = trySyscall('pidfd_open', tid, PIDFD_THREAD);
  if (thread >= 0) return thread;
  const tgid = processOf(tid);
  return tgid === undefined ? leader : trySyscall('pidfd_open', tgid, 0);
}

/** A pidfd of this process: it stays its own, and is of no process that gets the number later. */
export function ownPidfd(): OwnedFd {
  return new OwnedFd(syscall('this process', 'pidfd_open', process.pid, 0));
}

/** The id of a thread's process; `undefined` where the thread is gone. */
export function processOf(tid: number): number | undefined {
  try {
    return Number(/^Tgid:\s*(\d+)$/m.exec(readFileSync(`/proc/${tid}/status`, 'latin1'))?.[1]);
  } catch {
    return undefined;
  }
}
