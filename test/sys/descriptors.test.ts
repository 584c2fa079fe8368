import { once } from 'node:events';
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { createServer, Socket } from 'node:net';
import { release, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { O_RDWR, POLLHUP, POLLIN } from '../../src/abi/fcntl.ts';
import { markFile, markOf, OwnedFd, setCloseOnExec } from '../../src/sys/fd.ts';
import { characterDevice, ELSEWHERE, inodeOf, inodeOfOwn, lockFile, openAnew } from '../../src/sys/file.ts';
import { kernelIsAtLeast } from '../../src/sys/kernel.ts';
import { trySyscall } from '../../src/sys/libc.ts';
import { createSharedMemory } from '../../src/sys/memory.ts';
import { PollSet } from '../../src/sys/poll.ts';
import { duplicateFd, identityOf, pidOf, processOf } from '../../src/sys/pidfd.ts';
import { connectTo, FdStore, receiveFd, sendFd, SOCK_STREAM, socketPair } from '../../src/sys/socket.ts';
import { Child } from '../../src/vmm/child.ts';
import { outcome } from '../support/errno.ts';
import { lacksForRun } from '../support/host.ts';

const { pid } = process;
const lacking = lacksForRun();
const isOpen = (fd: number): boolean => existsSync(`/proc/self/fd/${fd}`);

describe('OwnedFd', () => {
  it('closes once, and is of no use afterwards', () => {
    const fd = new OwnedFd(openSync('/dev/null', 'r'));
    const { number } = fd;
    expect(isOpen(number)).toBe(true);
    fd.close();
    expect(isOpen(number)).toBe(false);
    const next = openSync('/dev/null', 'r');
    expect(next).toBe(number);
    fd.close();
    expect(isOpen(next)).toBe(true);
    closeSync(next);
    expect(() => fd.number).toThrow('after close');
  });

  it('closes at the end of its scope', () => {
    let number = -1;
    {
      using fd = new OwnedFd(openSync('/dev/null', 'r'));
      ({ number } = fd);
    }
    expect(isOpen(number)).toBe(false);
  });

  it('is closed on exec, or not', () => {
    using fd = new OwnedFd(openSync('/dev/null', 'r'));
    const isCloseOnExec = (): boolean => {
      const flags = /^flags:\s+([0-7]+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd.number}`, 'utf8'))?.[1] ?? '';
      return (Number.parseInt(flags, 8) & 0o2000000) !== 0;
    };
    expect(isCloseOnExec()).toBe(true);
    setCloseOnExec(fd.number, false);
    expect(isCloseOnExec()).toBe(false);
    setCloseOnExec(fd.number, true);
    expect(isCloseOnExec()).toBe(true);
    expect(outcome(() => setCloseOnExec(9999, true))).toBe('EBADF');
  });
});

describe('sockets', () => {
  it('pass a descriptor, before the receiver looks', ({ skip }) => {
    skip(lacking !== undefined, lacking);
    const [mine, theirs] = socketPair();
    using file = createSharedMemory('test', 4096);
    sendFd(mine.number, file.number);
    mine.close();
    const received = receiveFd(theirs.number);
    expect(received?.number).not.toBe(file.number);
    expect(inodeOfOwn(received?.number ?? -1)).toBe(inodeOfOwn(file.number));
    received?.close();
    expect(receiveFd(theirs.number)).toBeUndefined();
    theirs.close();
  });

  it('know no descriptor in a message without one', () => {
    const [mine, theirs] = socketPair();
    writeSync(mine.number, 'x');
    expect(receiveFd(theirs.number)).toBeUndefined();
    theirs.close();
    expect(outcome(() => sendFd(mine.number, 0))).toBe('EPIPE');
    expect(outcome(() => sendFd(mine.number, 9999))).toBe('EBADF');
    mine.close();
  });
});

describe('sockets of bytes', () => {
  it('have the bytes that come with a descriptor among the others', () => {
    const [mine, theirs] = socketPair(SOCK_STREAM);
    writeSync(mine.number, 'so');
    sendFd(mine.number, 1, 0x2020202020202020n);
    writeSync(mine.number, 'what');
    mine.close();
    expect(readFileSync(theirs.number, 'latin1')).toBe('so        what');
    theirs.close();
  });

  it('are connected to by path', async () => {
    const path = join(mkdtempSync(join(tmpdir(), 'vfio-shim-socket-')), 'socket');
    expect(outcome(() => connectTo(path))).toBe('ENOENT');
    expect(outcome(() => connectTo('x'.repeat(200)))).toBe('EINVAL');
    const server = createServer((socket) => socket.end('welcome')).listen(path);
    await once(server, 'listening');
    const [data] = (await once(new Socket({ fd: connectTo(path).number }), 'data')) as [Buffer];
    expect(data).toBeBytes(Buffer.from('welcome'));
    server.close();
    rmSync(dirname(path), { recursive: true });
  });
});

describe('which file a descriptor is', () => {
  it('is told by the inode of shared memory', ({ skip }) => {
    skip(lacking !== undefined, lacking);
    using file = createSharedMemory('test', 4096);
    using copy = new OwnedFd(trySyscall('dup', file.number));
    using again = new OwnedFd(openSync(`/proc/self/fd/${file.number}`, 'r'));
    using another = createSharedMemory('test', 4096);
    expect(inodeOfOwn(file.number)).toBeGreaterThan(0);
    expect(inodeOfOwn(another.number)).not.toBe(inodeOfOwn(file.number));
    expect(inodeOf(pid, copy.number)).toBe(inodeOfOwn(file.number));
    expect(inodeOf(pid, again.number)).toBe(inodeOfOwn(file.number));
    for (const fd of [9999, -1]) expect(inodeOf(pid, fd)).toBeUndefined();
    // what cannot be told is not "no such descriptor"
    expect(outcome(() => inodeOf(0x7fff_fff0, 0))).toBe('ESRCH');
    expect(outcome(() => inodeOfOwn(9999))).toBe('EBADF');
    // inode numbers of other file systems are not compared with those of shared memory
    using other = new OwnedFd(openSync('/proc/self/exe', 'r'));
    expect(inodeOfOwn(other.number)).toBe(ELSEWHERE);
    expect(inodeOf(pid, other.number)).toBe(ELSEWHERE);
    expect(characterDevice(other.number)).toBeUndefined();
    using zero = new OwnedFd(openSync('/dev/zero', 'r'));
    expect(characterDevice(zero.number)).toBe('1:5');
  });

  it('a lock lasts as long as any descriptor of the open file, wherever it is', () => {
    using memory = createSharedMemory('test', 0);
    const [into, out] = socketPair();
    const first = openAnew(memory.number, O_RDWR);
    expect(lockFile(first.number, 'exclusive')).toBe(true);
    const isFree = (): boolean => {
      using other = openAnew(memory.number, O_RDWR);
      return lockFile(other.number, 'exclusive');
    };
    expect(isFree()).toBe(false);
    const copy = new OwnedFd(trySyscall('dup', first.number));
    first.close();
    expect(isFree()).toBe(false);
    sendFd(into.number, copy.number);
    copy.close();
    expect(isFree(), 'on its way').toBe(false);
    const received = receiveFd(out.number);
    expect(isFree()).toBe(false);
    expect(lockFile(received?.number ?? -1, 'shared')).toBe(true);
    using another = openAnew(memory.number, O_RDWR);
    expect(lockFile(another.number, 'shared')).toBe(true);
    received?.close();
    expect(isFree()).toBe(false);
    another.close();
    expect(isFree()).toBe(true);
    expect(outcome(() => lockFile(9999, 'shared'))).toBe('EBADF');
    into.close();
    out.close();
  });
});

describe('PollSet', () => {
  it('waits for what it watches, in its first places only', () => {
    const [mine, theirs] = socketPair();
    const set = new PollSet(2);
    set.set(0, theirs.number, POLLIN);
    set.set(1, -1, POLLIN);
    expect(set.wait(2, 0)).toBe(false);
    const begun = performance.now();
    expect(set.wait(2, 20)).toBe(false);
    expect(performance.now() - begun).toBeGreaterThan(15);
    writeSync(mine.number, 'x');
    expect(set.wait(0, 0)).toBe(false);
    expect(set.wait(2)).toBe(true);
    expect(set.events(0)).toBe(POLLIN);
    expect(set.events(1)).toBe(0);
    mine.close();
    expect(set.wait(1, 1000)).toBe(true);
    expect(set.events(0)).toBe(POLLIN | POLLHUP);
    expect(set.events(7)).toBe(0);
    expect(() => set.set(2, 0, POLLIN)).toThrow(RangeError);
    theirs.close();
  });
});

it('kernelIsAtLeast compares versions as numbers', () => {
  const [major = 0, minor = 0] = release().split('.', 2).map(Number);
  expect(kernelIsAtLeast(major, minor)).toBe(true);
  expect(kernelIsAtLeast(major - 1, minor + 100)).toBe(true);
  expect(kernelIsAtLeast(major, minor + 1)).toBe(false);
  expect(kernelIsAtLeast(major + 1, 0)).toBe(false);
});

describe('FdStore', () => {
  it('keeps one open file and its number, until another comes or it is cleared', () => {
    const [into, out] = socketPair();
    const fdStore = new FdStore(into.number, out.number);
    expect(fdStore.peek()).toBeUndefined();
    const keep = (number: number): number => {
      using file = createSharedMemory(`fdStore-${number}`, 0);
      fdStore.put(number, file);
      return inodeOfOwn(file.number);
    };
    const first = keep(2 ** 40 + 1);
    for (let n = 0; n < 3; n += 1) {
      const found = fdStore.peek();
      expect(found?.number).toBe(2 ** 40 + 1);
      expect(inodeOfOwn(found?.fd.number ?? -1)).toBe(first); // though the one that put it there is closed
      found?.fd.close();
    }
    const second = keep(5);
    // another process has the ends only
    const successor = new FdStore(into.number, out.number);
    const found = successor.peek();
    expect([found?.number, inodeOfOwn(found?.fd.number ?? -1)]).toEqual([5, second]);
    found?.fd.close();
    successor.clear();
    expect(fdStore.peek()).toBeUndefined();
    successor.clear();
    into.close();
    out.close();
  });
});

describe('duplicateFd and marks', () => {
  it('another descriptor of the same open file, and of its mark, by any thread of the process', ({ skip }) => {
    skip(lacking !== undefined, lacking);
    using file = createSharedMemory('marked', 0);
    expect(markOf(file.number)).toEqual({ mark: 0, owner: 0 });
    markFile(file.number, 33, pid);
    const marked = { mark: 33, owner: pid };
    using copy = duplicateFd(pid, file.number) ?? new OwnedFd(-1);
    expect(markOf(copy.number)).toEqual(marked);
    using other = new OwnedFd(openSync(`/proc/self/fd/${file.number}`, 'r'));
    expect(markOf(other.number), 'a file that was opened anew').toEqual({ mark: 0, owner: 0 });
    const threads = readdirSync('/proc/self/task').map(Number);
    expect(threads.length).toBeGreaterThan(1);
    for (const thread of threads) {
      using byThread = duplicateFd(thread, file.number) ?? new OwnedFd(-1);
      expect(markOf(byThread.number)).toEqual(marked);
      expect(processOf(thread)).toBe(pid);
    }
    expect(outcome(() => markFile(file.number, 65, pid))).toBe('EINVAL');
    expect(outcome(() => markFile(file.number, 1, 2 ** 22 + 1))).toBe('ESRCH');
  });

  it('a process has one number by all its threads, which has its id in it and is no other’s', async () => {
    const mine = identityOf(pid) ?? 0n;
    expect(pidOf(mine)).toBe(pid);
    for (const thread of readdirSync('/proc/self/task').map(Number)) expect(identityOf(thread)).toBe(mine);
    const child = new Child(['sh', '-c', 'exec -a "a) b ( c" sleep 1000']);
    const theirs = identityOf(child.pid ?? 0) ?? 0n;
    expect(pidOf(theirs)).toBe(child.pid);
    expect(theirs >> 22n).toBeGreaterThan(mine >> 22n);
    child.kill();
    await child.exited;
    expect(identityOf(child.pid ?? 0)).toBeUndefined();
  });

  it('a mark by a process that has ended has no owner', async () => {
    using file = createSharedMemory('marked', 0);
    const child = new Child(['sleep', '1000']);
    markFile(file.number, 1, child.pid ?? 0);
    expect(markOf(file.number)).toEqual({ mark: 1, owner: child.pid });
    child.kill();
    await child.exited;
    expect(markOf(file.number)).toEqual({ mark: 1, owner: 0 });
  });

  it('no descriptor is undefined, no process an error', ({ skip }) => {
    skip(lacking !== undefined, lacking);
    expect(duplicateFd(pid, 1_000_000)).toBeUndefined();
    expect(duplicateFd(pid, -1)).toBeUndefined();
    expect(outcome(() => duplicateFd(2 ** 22 + 1, 0))).not.toBe('OK');
    expect(processOf(2 ** 22 + 1)).toBeUndefined();
  });
});
