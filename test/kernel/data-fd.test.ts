import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { F_SETFL, O_NONBLOCK, POLLIN } from '../../src/abi/fcntl.ts';
import { Parked } from '../../src/interpose/memory/parked.ts';
import { KernelDataFd, type DataFdMemory } from '../../src/kernel/data-fd.ts';
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
import { cut, noise } from '../support/bytes.ts';
import { outcome, thrownBy } from '../support/errno.ts';

/*
 * A file counts in its position as the drivers' data fds do, so one can stand for the other wherever only read, write and
 * the position are concerned.
 */

class Killed extends Error {}

/** Passes `stores` on to the record of what is under way, then dies at the next. */
function mortal(live: DataFdMemory['live'], stores: number): DataFdMemory['live'] {
  let left = stores;
  return new Proxy(live, {
    get: (target, key) => Reflect.get(target, key, target) as unknown,
    set: (target, key, value) => {
      if (left === 0) throw new Killed();
      left -= 1;
      return Reflect.set(target, key, value, target);
    },
  });
}

describe('KernelDataFd, with a file in the place of a driver', () => {
  let directory: string;
  let file: string;
  const opened: number[] = [];
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'shim-data-fd-'));
    file = join(directory, 'data');
  });
  afterEach(() => {
    for (const fd of opened.splice(0)) closeSync(fd);
    rmSync(directory, { recursive: true });
  });

  /** An open file that outlives the objects that use it, as one in an fd store does. */
  function open(flags: string): number {
    const fd = openSync(file, flags);
    opened.push(fd);
    return fd;
  }
  const duplicate = (fd: number): OwnedFd => new OwnedFd(trySyscall('dup', fd));

  function memory(): { committed: Uint8Array; live: DataFdMemory['live'] } {
    const live = kernel_live.view(new Uint8Array(KERNEL_LIVE_SIZE));
    const committed = new Uint8Array(KERNEL_STATE_SIZE);
    kernel_state.view(committed).session = 7;
    return { committed, live };
  }

  it('says by which descriptor the driver tells that it is ready, and a call that is parked waits for that', () => {
    const [here, there] = socketPair();
    const { committed, live } = memory();
    using fd = here;
    const session = new KernelDataFd(fd, { my: kernel_state.view(committed), live });
    session.begin();
    const bytes = new Uint8Array(100);
    const { readiness } = thrownBy(() => session.read(bytes));
    expect(readiness).toEqual({ fd: fd.number, events: POLLIN });
    const parked = new Parked();
    parked.add(1, { readiness }, []);
    writeSync(there.number, noise(60));
    parked.wait();
    expect(parked.due(() => true)).toEqual([1]);
    expect(session.read(bytes)).toBe(60);
    expect(bytes.subarray(0, 60)).toBeBytes(noise(60));
    there.close();
    expect(session.read(bytes)).toBe(0);
  });

  it('a successor reads on without a byte lost or doubled, wherever its predecessor was killed', () => {
    const data = noise(10_000);
    writeFileSync(file, data);
    let kills = 0;
    for (let stores = 0; ; stores += 1) {
      const fd = open('r');
      const { committed, live } = memory();
      const first = new KernelDataFd(duplicate(fd), { my: kernel_state.view(committed), live });
      first.begin();
      const received: Buffer[] = [];
      const shared = Buffer.alloc(3000);
      // one call that was served and committed
      expect(first.read(shared.subarray(0, 1000))).toBe(1000);
      received.push(Buffer.from(shared.subarray(0, 1000)));
      // another, of three reads into shared memory, in which the process dies, and nothing is committed
      const work = kernel_state.view(committed.slice());
      const doomed = new KernelDataFd(duplicate(fd), { my: work, live: mortal(live, stores) });
      let died = false;
      try {
        for (let at = 0; at < 3000; at += 1000) doomed.read(shared.subarray(at, at + 1000));
      } catch (error) {
        if (!(error instanceof Killed)) throw error;
        died = true;
      }
      if (!died) break; // the process outlived the call
      kills += 1;
      const successor = new KernelDataFd(duplicate(fd), { my: kernel_state.view(committed), live });
      successor.adopt(false);
      // the call is served again, into the same memory
      let filled = 0;
      while (filled < 3000) filled += successor.read(shared.subarray(filled, 3000));
      received.push(Buffer.from(shared));
      for (;;) {
        const length = successor.read(shared);
        if (length === 0) break;
        received.push(Buffer.from(shared.subarray(0, length)));
      }
      expect(received).toBeBytes(data);
    }
    expect(kills).toBeGreaterThan(8);
  });

  it('a read that was cut off where the position says nothing is an error, not a guess', () => {
    writeFileSync(file, noise(100));
    const fd = open('r');
    const { committed, live } = memory();
    live.session = 7;
    live.status = Live.CALLING;
    live.position = 0;
    const successor = new KernelDataFd(duplicate(fd), { my: kernel_state.view(committed), live });
    successor.adopt(false);
    expect(outcome(() => successor.read(new Uint8Array(10)))).toBe('EIO');
    expect(outcome(() => successor.read(new Uint8Array(10)))).toBe('EIO');
  });

  it('a successor writes on exactly, or fails where it cannot know whether the driver accepted what it took', () => {
    const data = noise(4000);
    let kills = 0;
    let refusals = 0;
    for (let stores = 0; ; stores += 1) {
      writeFileSync(file, '');
      const fd = open('w');
      const { committed, live } = memory();
      const first = new KernelDataFd(duplicate(fd), { my: kernel_state.view(committed), live });
      first.begin();
      expect(first.write(data.subarray(0, 1000))).toBe(1000);
      const work = kernel_state.view(committed.slice());
      const doomed = new KernelDataFd(duplicate(fd), { my: work, live: mortal(live, stores) });
      let died = false;
      try {
        for (let at = 1000; at < 4000; at += 1000) doomed.write(data.subarray(at, at + 1000));
      } catch (error) {
        if (!(error instanceof Killed)) throw error;
        died = true;
      }
      if (!died) break;
      kills += 1;
      const successor = new KernelDataFd(duplicate(fd), { my: kernel_state.view(committed), live });
      successor.adopt(true);
      let done = 1000;
      const answer = outcome(() => {
        while (done < 4000) done += successor.write(data.subarray(done, Math.min(4000, done + 1000)));
      });
      if (answer === 'OK') expect(readFileSync(file)).toBeBytes(data);
      else {
        expect(answer).toBe('EIO');
        refusals += 1;
      }
    }
    expect(kills).toBeGreaterThan(8);
    expect(refusals).toBeGreaterThan(0);
    expect(refusals).toBeLessThan(kills / 2);
  });

  /*
   * A socket counts nothing in its position, as the data fd of xe: it stays 0 (drivers/vfio/pci/xe/main.c, Linux 7.1).
   */

  it('a successor reads on exactly where the position never moves, or fails with EIO if a read was cut off', () => {
    const data = noise(10_000);
    const ends = { exact: 0, unknown: 0 };
    for (let stores = 0; ; stores += 1) {
      const [here, there] = socketPair();
      using fd = here;
      using driver = there;
      for (const message of cut(data, [1000])) writeSync(driver.number, message);
      const { committed, live } = memory();
      const first = new KernelDataFd(duplicate(fd.number), { my: kernel_state.view(committed), live });
      first.begin();
      const shared = Buffer.alloc(3000);
      const received: Buffer[] = [];
      for (const length of stores % 2 === 0 ? [1000] : []) {
        expect(first.read(shared.subarray(0, length))).toBe(length);
        received.push(Buffer.from(shared.subarray(0, length)));
      }
      const work = kernel_state.view(committed.slice());
      const doomed = new KernelDataFd(duplicate(fd.number), { my: work, live: mortal(live, stores >> 1) });
      let died = false;
      try {
        for (let at = 0; at < 3000; at += 1000) doomed.read(shared.subarray(at, at + 1000));
      } catch (error) {
        if (!(error instanceof Killed)) throw error;
        died = true;
      }
      if (!died) break;
      const wasCalling = live.status === Live.CALLING;
      const successor = new KernelDataFd(duplicate(fd.number), { my: kernel_state.view(committed), live });
      successor.adopt(false);
      let filled = 0;
      const answer = outcome(() => {
        while (filled < 3000) filled += successor.read(shared.subarray(filled, filled + 1000));
      });
      if (wasCalling) {
        expect(answer).toBe('EIO');
        expect(outcome(() => successor.read(shared))).toBe('EIO');
        ends.unknown += 1;
        continue;
      }
      expect(answer).toBe('OK');
      received.push(Buffer.from(shared));
      for (let left = data.length - Buffer.concat(received).length; left > 0; left -= 1000) {
        received.push(Buffer.from(shared.subarray(0, successor.read(shared))));
      }
      expect(Buffer.concat(received)).toBeBytes(data);
      expect(outcome(() => successor.read(shared))).toBe('EAGAIN');
      ends.exact += 1;
    }
    expect(ends.exact).toBeGreaterThan(4);
    expect(ends.unknown).toBeGreaterThan(4);
  });

  it('a successor writes on exactly where the position never moves, or fails with EIO if a write was cut off', () => {
    const data = noise(4000);
    const ends = { exact: 0, unknown: 0 };
    for (let stores = 0; ; stores += 1) {
      const [here, there] = socketPair();
      using fd = here;
      using driver = there;
      const { committed, live } = memory();
      const first = new KernelDataFd(duplicate(fd.number), { my: kernel_state.view(committed), live });
      first.begin();
      let done = stores % 2 === 0 ? first.write(data.subarray(0, 1000)) : 0;
      const from = done;
      const doomed = new KernelDataFd(duplicate(fd.number), {
        my: kernel_state.view(committed.slice()),
        live: mortal(live, stores >> 1),
      });
      let died = false;
      try {
        for (let at = from; at < 4000; at += 1000) doomed.write(data.subarray(at, at + 1000));
      } catch (error) {
        if (!(error instanceof Killed)) throw error;
        died = true;
      }
      if (!died) break;
      const wasCalling = live.status === Live.CALLING;
      const successor = new KernelDataFd(duplicate(fd.number), { my: kernel_state.view(committed), live });
      successor.adopt(true);
      const answer = outcome(() => {
        while (done < 4000) done += successor.write(data.subarray(done, Math.min(4000, done + 1000)));
      });
      expect(answer).toBe(wasCalling ? 'EIO' : 'OK');
      ends[wasCalling ? 'unknown' : 'exact'] += 1;
      if (wasCalling) continue;
      const taken = cut(new Uint8Array(data.length), [1000]);
      for (const message of taken) expect(readSync(driver.number, message)).toBe(1000);
      expect(Buffer.concat(taken)).toBeBytes(data);
      trySyscall('fcntl', driver.number, F_SETFL, O_NONBLOCK);
      expect(() => readSync(driver.number, Buffer.alloc(1))).toThrow('EAGAIN'); // nothing was written twice
    }
    expect(ends.exact).toBeGreaterThan(4);
    expect(ends.unknown).toBeGreaterThan(4);
  });

  it('an error of the driver that its user has not been told is told by the successor', () => {
    writeFileSync(file, '');
    const fd = open('r'); // a write to it fails with EBADF
    const { committed, live } = memory();
    const first = new KernelDataFd(duplicate(fd), { my: kernel_state.view(committed), live });
    first.begin();
    expect(outcome(() => first.write(noise(10)))).toBe('EBADF');
    const successor = new KernelDataFd(duplicate(fd), { my: kernel_state.view(committed), live });
    successor.adopt(true);
    expect(outcome(() => successor.write(noise(10)))).toBe('EBADF');
  });

  it('is over when it is closed', () => {
    writeFileSync(file, noise(10));
    const { committed, live } = memory();
    const session = new KernelDataFd(duplicate(open('r')), { my: kernel_state.view(committed), live });
    session.begin();
    session.close();
    expect(outcome(() => session.read(new Uint8Array(1)))).toBe('ENODEV');
    expect(outcome(() => session.precopyInfo())).toBe('ENODEV');
  });
});
