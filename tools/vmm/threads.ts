import { readFileSync, readdirSync } from 'node:fs';
import { SECCOMP_IOCTL_NOTIF_RECV } from '../../src/abi/seccomp.ts';

/** A thread of a process, as /proc/PID/task/TID tells of it. */
export interface Thread {
  readonly tid: number;
  /**
   * It is blocked in a system call that ends by an event alone: nothing that the thread itself has asked for wakes it. (What else
   * would is a timer that sends a signal, of which Node arms none.)
   */
  readonly waitsForEver: boolean;
  /** How often it has left a processor, by itself or not: a thread that is never woken never leaves one. */
  readonly switches: number;
  /** Its time on processors, in nanoseconds. */
  readonly time: number;
  /** What it is blocked in, as the kernel says it: the number of the call, and its arguments. */
  readonly call: string;
}

/** Whether a call has no timeout, by its arguments. */
type Test = (...args: readonly bigint[]) => boolean;

const NONE = 0n;
/** -1, as an int. */
const isMinusOne = (argument: bigint | undefined): boolean =>
  argument !== undefined && (argument & 0xffff_ffffn) === 0xffff_ffffn;
const futex: Test = (_address, _operation, _value, timeout) => timeout === NONE;
const epollWait: Test = (_fd, _events, _count, timeout) => isMinusOne(timeout);
const ppoll: Test = (_fds, _count, timeout) => timeout === NONE;
/** Of a pipe, a socket or a terminal, as programs wait for input. */
const read: Test = () => true;
const ioctl: Test = (_fd, command) => command === BigInt(SECCOMP_IOCTL_NOTIF_RECV);

/** The calls in which Node, the supervisor and small programs wait (asm/unistd_64.h; asm-generic/unistd.h). */
const CALLS: Readonly<Partial<Record<NodeJS.Architecture, Readonly<Record<number, Test>>>>> = {
  x64: { 0: read, 16: ioctl, 202: futex, 232: epollWait, 271: ppoll, 281: epollWait },
  arm64: { 22: epollWait, 29: ioctl, 63: read, 73: ppoll, 98: futex },
};

/** The threads of a process. */
export function threadsOf(pid: number): Thread[] {
  return readdirSync(`/proc/${pid}/task`).map((tid) => {
    const text = (file: string): string => readFileSync(`/proc/${pid}/task/${tid}/${file}`, 'latin1').trim();
    const switches = Array.from(text('status').matchAll(/^(?:non)?voluntary_ctxt_switches:\s+(\d+)$/gm), ([, n]) =>
      Number(n),
    );
    const call = text('syscall');
    const [number, ...args] = call.split(' ');
    const test = CALLS[process.arch]?.[Number(number)];
    return {
      tid: Number(tid),
      waitsForEver: test?.(...args.slice(0, 6).map(BigInt)) ?? false,
      switches: switches.reduce((sum, n) => sum + n, 0),
      time: Number(text('schedstat').split(' ')[0]),
      call,
    };
  });
}
