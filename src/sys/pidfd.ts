import { readFileSync } from 'node:fs';
import { errnoNumber } from '../abi/errno.ts';
import { PIDFD_THREAD } from '../abi/prctl.ts';
import { OwnedFd } from './fd.ts';
import { failedWith, syscall, syscallError, trySyscall } from './libc.ts';

const GONE = -errnoNumber('ESRCH');
/** How long a process is taken for that of a thread id which it cannot vouch for, in milliseconds. */
const VOUCHED = 1;

interface Opened {
  readonly pidfd: OwnedFd;
  /** When it may belong to another process than the thread's; never, if it ends with the thread. */
  readonly until: number;
}

/**
 * The threads that were asked lately: VMMs have one for each device that they save. A thread's pidfd stays its own, and is of no other
 * thread that gets its number later.
 */
const opened = new Map<number, Opened>();
const MOST = 16;

/**
 * A descriptor of this process for the open file behind a descriptor of another, named by any of its threads (Linux 5.6).
 * `undefined` if it has no such descriptor. Throws `ERR_SYSCALL`: `EPERM` if this process may not trace that one,
 * `ESRCH` if it is gone.
 */
export function duplicateFd(tid: number, fd: number): OwnedFd | undefined {
  const result = takeFd(tid, fd);
  if (result >= 0) return new OwnedFd(result);
  if (failedWith(result, 'EBADF')) return undefined;
  throw syscallError(`descriptor ${fd} of process ${tid}`, 'pidfd_getfd', -result);
}

/** As duplicateFd(), but the new descriptor's number, or a negative errno. */
export function takeFd(tid: number, fd: number): number {
  const known = opened.get(tid);
  if (known !== undefined) {
    const isSure = known.until === Infinity || performance.now() < known.until;
    const result = isSure ? trySyscall('pidfd_getfd', known.pidfd.number, fd, 0) : GONE;
    if (!failedWith(result, 'ESRCH')) return result;
    forget(tid, known);
  }
  const made = openThread(tid);
  if (typeof made === 'number') return made;
  const [oldest] = opened;
  if (opened.size === MOST && oldest !== undefined) forget(...oldest);
  opened.set(tid, made);
  return trySyscall('pidfd_getfd', made.pidfd.number, fd, 0);
}

function forget(tid: number, { pidfd }: Opened): void {
  opened.delete(tid);
  pidfd.close();
}

/**
 * A pidfd of a thread's process, or a negative errno. From Linux 6.9 on it is one of the thread itself, if that leads no process,
 * which is as good and needs no look into /proc.
 */
function openThread(tid: number): Opened | number {
  const leader = trySyscall('pidfd_open', tid, 0);
  const exact = leader >= 0 ? leader : trySyscall('pidfd_open', tid, PIDFD_THREAD);
  if (exact >= 0) return { pidfd: new OwnedFd(exact), until: Infinity };
  const tgid = processOf(tid);
  const pidfd = tgid === undefined ? leader : trySyscall('pidfd_open', tgid, 0);
  return pidfd < 0 ? pidfd : { pidfd: new OwnedFd(pidfd), until: performance.now() + VOUCHED };
}

/** A pidfd of this process: it stays its own, and is of no process that gets the number later. */
export function ownPidfd(): OwnedFd {
  return new OwnedFd(syscall('this process', 'pidfd_open', process.pid, 0));
}

/** The id of a thread's process; `undefined` if the thread is gone. */
export function processOf(tid: number): number | undefined {
  try {
    return Number(/^Tgid:\s*(\d+)$/m.exec(readFileSync(`/proc/${tid}/status`, 'latin1'))?.[1]);
  } catch {
    return undefined;
  }
}

/**
 * A thread's process as a number that no other process of this boot has, whoever gets its id later: above the id, when it was started,
 * in clock ticks (proc_pid_stat(5): starttime). `undefined` if the thread is gone.
 */
export function identityOf(tid: number): bigint | undefined {
  const pid = processOf(tid);
  if (pid === undefined) return undefined;
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const started = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[STARTTIME - 3]; // behind the name, which may have anything in it
    return (BigInt(started ?? 0) << PID_BITS) | BigInt(pid);
  } catch {
    return undefined;
  }
}

/** The process id in the number of `identityOf()`. */
export function pidOf(identity: bigint): number {
  return Number(BigInt.asUintN(Number(PID_BITS), identity));
}

const STARTTIME = 22;
/** No id is larger (linux/threads.h: PID_MAX_LIMIT). */
const PID_BITS = 22n;
