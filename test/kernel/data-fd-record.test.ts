import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { errnoNumber, type ErrnoName } from '../../src/abi/errno.ts';
import { POLLOUT } from '../../src/abi/fcntl.ts';
import { KernelDataFd } from '../../src/kernel/data-fd.ts';
import {
  KERNEL_LIVE_SIZE,
  kernel_live,
  KERNEL_STATE_SIZE,
  kernel_state,
  Live,
} from '../../src/kernel/session-state.ts';
import { OwnedFd } from '../../src/sys/fd.ts';
import { trySyscall } from '../../src/sys/libc.ts';
import { socketPair } from '../../src/sys/socket.ts';
import { noise } from '../support/bytes.ts';
import { outcome, thrownBy } from '../support/errno.ts';

const SESSION = 7;

describe('the record of what is under way on a data fd', () => {
  const data = noise(10_000);
  const opened: number[] = [];
  let directory: string;
  let file: string;
  let my: ReturnType<typeof kernel_state.view>;
  let live: ReturnType<typeof kernel_live.view>;

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'shim-record-'));
    file = join(directory, 'data');
    writeFileSync(file, data);
    my = kernel_state.view(new Uint8Array(KERNEL_STATE_SIZE));
    live = kernel_live.view(new Uint8Array(KERNEL_LIVE_SIZE));
    my.session = SESSION;
    live.session = SESSION;
  });
  afterEach(() => {
    for (const fd of opened.splice(0)) closeSync(fd);
    rmSync(directory, { recursive: true });
  });

  /** An open file of which `moved` bytes were read by whoever had it before. */
  function driver(flags = 'r', moved = 0): number {
    const fd = openSync(file, flags);
    opened.push(fd);
    if (moved > 0) expect(readSync(fd, new Uint8Array(moved))).toBe(moved);
    return fd;
  }

  /** A process that has the data fd. */
  function processWith(fd: number): KernelDataFd {
    return new KernelDataFd(new OwnedFd(trySyscall('dup', fd)), { my, live });
  }

  function successorOf(fd: number, writing = false): KernelDataFd {
    const successor = processWith(fd);
    successor.adopt(writing);
    return successor;
  }

  const read = (session: KernelDataFd, length: number): Uint8Array => {
    const bytes = new Uint8Array(length);
    return bytes.subarray(0, session.read(bytes));
  };

  describe('while a session goes on', () => {
    it('says that the position tells what was moved, once it has agreed with the first bytes', () => {
      const session = processWith(driver());
      session.begin();
      expect(live.tracked).toBe(0);
      session.read(new Uint8Array(100));
      expect([live.session, live.status, live.position, live.tracked]).toEqual([SESSION, Live.IDLE, 100, 1]);
    });

    it('does not say so of a driver that counts otherwise, then or later', () => {
      const fd = driver('r', 50);
      const session = processWith(fd);
      session.begin();
      session.read(new Uint8Array(100));
      expect(live.tracked).toBe(0);
      trySyscall('lseek', fd, 0, 0); // agrees with the second read's length by chance
      session.read(new Uint8Array(100));
      expect(live.tracked).toBe(0);
    });

    it('does not say so because nothing was read and the position is 0', () => {
      writeFileSync(file, '');
      const session = processWith(driver());
      session.begin();
      expect(session.read(new Uint8Array(100))).toBe(0);
      expect(live.tracked).toBe(0);
    });

    it('does not say so any more once a call has failed midway, and has moved the position by what it did not count', () => {
      const fd = driver('r');
      const session = processWith(fd);
      session.begin();
      session.read(new Uint8Array(100));
      expect(outcome(() => session.write(noise(5)))).toBe('EBADF');
      expect(live.tracked).toBe(1); // nothing has moved
      trySyscall('lseek', fd, 150, 0);
      expect(outcome(() => session.write(noise(5)))).toBe('EBADF');
      expect(live.tracked).toBe(0);
    });

    it('is of no earlier session: that has said so of another data fd', () => {
      live.tracked = 1;
      my.position = 500;
      const session = processWith(driver());
      session.begin();
      expect([live.tracked, my.position, live.position]).toEqual([0, 0, 0]);
    });

    it('writes nothing where there is nothing to write: the driver is not asked', () => {
      const session = processWith(driver('r')); // it would refuse
      session.begin();
      expect(session.write(new Uint8Array(0))).toBe(0);
    });

    it('says that a driver takes more when its descriptor can be written to', () => {
      const [here, there] = socketPair();
      using fd = here;
      const session = new KernelDataFd(fd, { my, live });
      session.begin();
      const { readiness, code } = thrownBy(() => {
        for (;;) session.write(noise(10_000));
      });
      there.close();
      expect([code, readiness]).toEqual(['ERR_NO_DATA_YET', { fd: fd.number, events: POLLOUT }]);
    });

    it('hands on what a data fd that is none answers to VFIO_MIG_GET_PRECOPY_INFO', () => {
      const session = processWith(driver());
      session.begin();
      expect(thrownBy(() => session.precopyInfo())).toMatchObject({ code: 'ERR_DEVICE', errno: 'ENOTTY' });
    });
  });

  describe('to a successor', () => {
    it('says nothing if it is of another session', () => {
      Object.assign(live, { session: SESSION - 1, status: Live.FAILED, errno: errnoNumber('EIO'), position: 400 });
      expect(read(successorOf(driver()), 100)).toBeBytes(data.subarray(0, 100));
    });

    it('counts what its predecessor has read and not counted, and then reads on', () => {
      Object.assign(live, { position: 1000, tracked: 1 });
      my.position = 400;
      const successor = successorOf(driver('r', 1000));
      expect(successor.read(new Uint8Array(500))).toBe(500);
      expect(my.position).toBe(900);
      expect(successor.read(new Uint8Array(500))).toBe(100);
      expect(my.position).toBe(1000);
      expect(read(successor, 500)).toBeBytes(data.subarray(1000, 1500));
      expect([my.position, live.position]).toEqual([1500, 1500]);
    });

    it('has the position tell how much a read that was cut off has read, even if it was the first', () => {
      for (const tracked of [0, 1]) {
        Object.assign(live, { status: Live.CALLING, position: 0, tracked });
        my.position = 0;
        const successor = successorOf(driver('r', 1000));
        expect(successor.read(new Uint8Array(3000)), `tracked ${tracked}`).toBe(1000);
        expect(read(successor, 10)).toBeBytes(data.subarray(1000, 1010));
      }
    });

    it('says that nothing was read if the position has stayed', () => {
      Object.assign(live, { status: Live.CALLING, position: 1000, tracked: 1 });
      my.position = 1000;
      expect(read(successorOf(driver('r', 1000)), 10)).toBeBytes(data.subarray(1000, 1010));
    });

    it.each<[string, { position: number; tracked: number; at: number; writing?: boolean }]>([
      ['the position has gone back', { position: 500, tracked: 1, at: 100 }],
      ['the position has stayed, and was never seen to move', { position: 0, tracked: 0, at: 0 }],
      ['the position was seen to differ, though it has moved', { position: 100, tracked: 0, at: 150 }],
      [
        'the position has not moved since the first bytes, and was not seen to agree',
        { position: 100, tracked: 0, at: 100 },
      ],
      [
        'the driver was writing, and the position was never seen to move',
        { position: 0, tracked: 0, at: 0, writing: true },
      ],
      ['the driver was writing, and its position has moved', { position: 0, tracked: 1, at: 100, writing: true }],
    ])('is an error, and stays one, if a call was cut off and %s', (_what, { position, tracked, at, writing }) => {
      Object.assign(live, { status: Live.CALLING, position, tracked });
      const successor = successorOf(driver('r+', at), writing);
      for (let n = 0; n < 2; n += 1) {
        const error = thrownBy(() => (writing ? successor.write(noise(1)) : successor.read(new Uint8Array(1))));
        expect(error).toMatchObject({ code: 'ERR_SESSION_ENDED', errno: 'EIO' });
      }
    });

    it.each([
      ['agrees', 300, 1],
      ['has stayed behind', 0, 0],
      ['has moved at times', 200, 0],
      ['has moved by more', 301, 0],
    ])('whose predecessor was in no call, says whether the position %s with what was moved', (_, at, tracked) => {
      for (const status of [Live.IDLE, Live.FAILED]) {
        Object.assign(live, { status, errno: errnoNumber('EIO'), position: 300, tracked: 1 - tracked });
        my.position = 300;
        const fd = driver('r', at);
        successorOf(fd);
        expect(live.tracked).toBe(tracked);
        live.status = Live.CALLING; // and is killed in the next one
        expect(outcome(() => successorOf(fd).read(new Uint8Array(1)))).toBe(tracked === 1 ? 'OK' : 'EIO');
      }
    });

    it('goes on with a write that was cut off before the driver took anything', () => {
      Object.assign(live, { status: Live.CALLING, position: 100, tracked: 1 });
      my.position = 100;
      expect(successorOf(driver('r+', 100), true).write(noise(60))).toBe(60);
      expect([my.position, live.position, live.status]).toEqual([160, 160, Live.IDLE]);
    });

    it.each<[ErrnoName | number, string, boolean]>([
      ['ENOSPC', 'ENOSPC', true],
      ['EFAULT', 'EFAULT', false],
      [9999, 'EIO', false],
    ])('tells an error of the driver once: %s', (errno, name, writing) => {
      Object.assign(live, { status: Live.FAILED, errno: typeof errno === 'number' ? errno : errnoNumber(errno) });
      const successor = successorOf(driver('r+'), writing);
      const move = (): number => (writing ? successor.write(noise(5)) : successor.read(new Uint8Array(5)));
      expect(thrownBy(move)).toMatchObject({ errno: name, syscall: writing ? 'write' : 'read' });
      expect(move()).toBe(5);
    });

    it('first counts what was read before the driver failed', () => {
      Object.assign(live, { status: Live.FAILED, errno: errnoNumber('EFAULT'), position: 20 });
      const successor = successorOf(driver('r', 20));
      expect(successor.read(new Uint8Array(100))).toBe(20);
      expect(outcome(() => successor.read(new Uint8Array(100)))).toBe('EFAULT');
    });

    it('still tells what was read if the successor is killed as well, in the next read', () => {
      Object.assign(live, { status: Live.CALLING, position: 0, tracked: 0 });
      const fd = driver('r', 1000);
      const committed = { session: my.session, position: my.position };
      let isAlive = true;
      const killable = {
        get number(): number {
          if (!isAlive) throw new Error('killed');
          return fd;
        },
      } as OwnedFd;
      const second = new KernelDataFd(killable, { my, live });
      second.adopt(false);
      expect(second.read(new Uint8Array(3000))).toBe(1000);
      isAlive = false;
      expect(() => second.read(new Uint8Array(3000))).toThrow('killed');
      expect(live.status).toBe(Live.CALLING);
      Object.assign(my, committed);
      const third = successorOf(fd);
      expect(third.read(new Uint8Array(3000))).toBe(1000);
      expect(read(third, 10)).toBeBytes(data.subarray(1000, 1010));
    });
  });
});
