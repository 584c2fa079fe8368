import { writeSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { POLLIN, POLLOUT } from '../../src/abi/fcntl.ts';
import { createEpoll, Timer, unwatch, watch, watchedData } from '../../src/sys/epoll.ts';
import { OwnedFd } from '../../src/sys/fd.ts';
import { syscall } from '../../src/sys/libc.ts';
import { PollSet } from '../../src/sys/poll.ts';
import { socketPair } from '../../src/sys/socket.ts';
import { outcome } from '../support/errno.ts';

describe('a file that watches others', () => {
  let open: OwnedFd[] = [];
  afterEach(() => {
    for (const fd of open) fd.close();
    open = [];
  });

  function kept<Fds extends readonly OwnedFd[]>(...fds: Fds): Fds {
    open.push(...fds);
    return fds;
  }

  /** What poll(2) says, of all that it can say. */
  function poll(fd: OwnedFd, timeout = 0): number {
    const set = new PollSet(1);
    set.set(0, fd.number, 0xffff);
    set.wait(1, timeout);
    return set.events(0);
  }

  const POLLRDNORM = 0x40;

  it('is readable as long as one of them has events, and never anything else', () => {
    const [epoll] = kept(createEpoll());
    const [here, there] = kept(...socketPair());
    watch(epoll.number, here.number, POLLIN, 0x1_2345_6789n);
    expect(poll(epoll)).toBe(0);
    writeSync(there.number, 'x');
    expect(poll(epoll)).toBe(POLLIN | POLLRDNORM);
    watch(epoll.number, here.number, 0, 2n ** 64n - 1n);
    expect(poll(epoll)).toBe(0);
    expect(watchedData(epoll.number)).toEqual([2n ** 64n - 1n]);
    watch(epoll.number, there.number, POLLOUT, 7n);
    expect(poll(epoll)).toBe(POLLIN | POLLRDNORM);
    expect(new Set(watchedData(epoll.number))).toEqual(new Set([2n ** 64n - 1n, 7n]));
    unwatch(epoll.number, there.number);
    expect(poll(epoll)).toBe(0);
    there.close();
    expect(poll(epoll), 'a hangup, which nobody has asked for').toBe(POLLIN | POLLRDNORM);
    here.close();
    expect(poll(epoll), 'a file that is gone').toBe(0);
    expect(watchedData(epoll.number)).toEqual([]);
  });

  it('cannot be read or written', () => {
    const [epoll] = kept(createEpoll());
    for (const call of ['read', 'write'] as const) {
      expect(outcome(() => syscall('try', call, epoll.number, 0, 1))).toBe('EINVAL');
    }
  });

  it('watches nothing that has no poll, nor what is not there', () => {
    const [epoll] = kept(createEpoll());
    expect(outcome(() => watch(epoll.number, 9999, POLLIN))).toBe('EBADF');
    expect(outcome(() => watch(0x7fff, epoll.number, POLLIN))).toBe('EBADF');
    expect(outcome(() => unwatch(epoll.number, 0))).toBe('ENOENT');
    expect(watchedData(kept(...socketPair())[0].number)).toEqual([]);
  });

  it('is readable from a time on', () => {
    const [epoll] = kept(createEpoll());
    const timer = new Timer();
    kept(timer.fd);
    watch(epoll.number, timer.fd.number, POLLIN);
    for (let n = 0; n < 100; n += 1) {
      timer.set(Infinity);
      expect(poll(epoll)).toBe(0);
      timer.set(0);
      expect(poll(epoll)).toBe(POLLIN | POLLRDNORM);
    }
    const now = (): number => Number(process.hrtime.bigint() / 1000n);
    timer.set(now() + 3600 * 1e6);
    expect(poll(epoll)).toBe(0);
    const due = now() + 20_000.5;
    timer.set(due);
    expect(poll(epoll, 60_000)).toBe(POLLIN | POLLRDNORM);
    expect(now()).toBeGreaterThanOrEqual(Math.floor(due));
  });
});
