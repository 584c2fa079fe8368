import { readFileSync } from 'node:fs';
import { errnoNumber } from '../abi/errno.ts';
import { CLOCK_MONOTONIC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, TFD_TIMER_ABSTIME } from '../abi/epoll.ts';
import { O_CLOEXEC, O_NONBLOCK, POLLIN } from '../abi/fcntl.ts';
import { OwnedFd } from './fd.ts';
import { addressOf, arch, syscall, syscallError, trySyscall, withAddress } from './libc.ts';
import { PollSet } from './poll.ts';

/**
 * A file that poll(2) calls readable as long as one that it watches has events, and nothing else ever (epoll(7)). It can be neither read
 * nor written, and keeps nothing of what it watches open: what was closed everywhere is watched no more.
 */
export function createEpoll(): OwnedFd {
  return new OwnedFd(syscall('watch descriptors', 'epoll_create1', O_CLOEXEC));
}

/** Has it watch a descriptor of this process for events, from now on for these; `data` is what watchedData() tells. */
export function watch(epoll: number, fd: number, events: number, data = 0n): void {
  const event = arch.epollEvent.encode({ events, data });
  const control = (operation: number): number =>
    withAddress(event, (at) => trySyscall('epoll_ctl', epoll, operation, fd, at));
  let result = control(EPOLL_CTL_ADD);
  if (result === -errnoNumber('EEXIST')) result = control(EPOLL_CTL_MOD);
  if (result < 0) throw syscallError(`watch descriptor ${fd}`, 'epoll_ctl', -result);
}

export function unwatch(epoll: number, fd: number): void {
  syscall(`watch descriptor ${fd} no more`, 'epoll_ctl', epoll, EPOLL_CTL_DEL, fd);
}

/** The data of all that a descriptor watches, whoever has had it do so (proc(5), fdinfo); none if it is no epoll file. */
export function watchedData(fd: number): bigint[] {
  const info = readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1');
  return [...info.matchAll(/^tfd:.* data: *([0-9a-f]+)/gm)].map(([, data]) => BigInt(`0x${data}`));
}

/** A descriptor that is readable from a time of `CLOCK_MONOTONIC` on (timerfd_create(2)). */
export class Timer {
  readonly fd = new OwnedFd(syscall('timer', 'timerfd_create', CLOCK_MONOTONIC, O_CLOEXEC | O_NONBLOCK));
  /** `struct itimerspec`: no interval, then seconds and nanoseconds; all 0 is no time. */
  readonly #time = new BigInt64Array(4);

  /** `from` in microseconds; 0 is now, `Infinity` never. */
  set(from: number): void {
    const isNow = from <= 0;
    const nanoseconds = isNow ? 1n : from === Infinity ? 0n : BigInt(Math.ceil(from)) * 1000n;
    this.#time[2] = nanoseconds / 1_000_000_000n;
    this.#time[3] = nanoseconds % 1_000_000_000n;
    // SAFETY: this object references the time, for longer than the call takes
    syscall('timer: set', 'timerfd_settime', this.fd.number, TFD_TIMER_ABSTIME, addressOf(this.#time), 0);
    if (isNow) this.#waitForExpiry();
  }

  /** A time that has passed expires by an interrupt, as any other. */
  #waitForExpiry(): void {
    const poll = new PollSet(1);
    poll.set(0, this.fd.number, POLLIN);
    poll.wait(1);
  }
}
