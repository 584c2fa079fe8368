import { closeSync, openSync, writeSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { POLLIN } from '../../../src/abi/fcntl.ts';
import { MAX_PARKED } from '../../../src/interpose/memory/journal.ts';
import { Parked } from '../../../src/interpose/memory/parked.ts';
import { OwnedFd } from '../../../src/sys/fd.ts';
import { socketPair } from '../../../src/sys/socket.ts';
import { growth, NOTHING } from '../../support/growth.ts';

describe('calls that wait', () => {
  let open: OwnedFd[] = [];
  afterEach(() => {
    for (const fd of open) fd.close();
    open = [];
  });

  /** The two ends of a connection. */
  function pair(): [here: number, there: number] {
    const ends = socketPair();
    open.push(...ends);
    return [ends[0].number, ends[1].number];
  }

  /** Has what waits tried, until a call is due whose place is this; how often there was something to try. */
  function triesUntil(parked: Parked, place: number, limit: number): number {
    for (let tries = 1; tries <= limit; tries += 1) {
      parked.wait();
      if (parked.due().includes(place)) return tries;
    }
    throw new Error(`place ${place} is not due after ${limit} waits`);
  }

  it('are tried when their device’s descriptor is ready, and not by the millisecond until then', () => {
    const parked = new Parked();
    const [here, there] = pair();
    parked.add(1, { fd: here, events: POLLIN });
    const begin = performance.now();
    parked.wait();
    expect(performance.now() - begin, 'by the clock').toBeGreaterThan(25);
    expect(parked.due()).toEqual([1]);
    parked.add(1, { fd: here, events: POLLIN });
    writeSync(there, 'x');
    parked.wait();
    expect(parked.due()).toEqual([1]);
    expect(parked.has(1)).toBe(true);
  });

  it('are waited for no longer than somebody else wants to wait', () => {
    const parked = new Parked();
    const [here, there] = pair();
    parked.watch(0, here);
    const until = performance.now() + 5;
    parked.wait(until);
    expect(performance.now()).toBeGreaterThanOrEqual(until - 0.1);
    expect(parked.events(0)).toBe(0);
    writeSync(there, 'x');
    parked.wait(Infinity);
    expect(parked.events(0)).toBe(POLLIN);
  });

  it('go by the clock when their descriptor says ready and they are not, as of a driver without poll', () => {
    const parked = new Parked();
    const file = openSync('/proc/self/exe', 'r');
    try {
      for (let n = 0; n < 3; n += 1) {
        parked.add(1, { fd: file, events: POLLIN });
        const begin = performance.now();
        parked.wait();
        if (n > 0) expect(performance.now() - begin).toBeGreaterThan(0.9); // no loop that turns at once
        triesUntil(parked, 1, 10);
      }
    } finally {
      closeSync(file);
    }
  });

  it('are tried each for itself: one by the clock, one by its descriptor, and all when another call was served', () => {
    const parked = new Parked();
    const [here, there] = pair();
    parked.add(1, { fd: here, events: POLLIN });
    parked.add(2, undefined);
    triesUntil(parked, 2, 10);
    parked.add(2, undefined);
    writeSync(there, 'x');
    expect(triesUntil(parked, 1, 2)).toBe(1);
    parked.remove(1);
    const [quiet] = pair();
    parked.add(1, { fd: quiet, events: POLLIN });
    parked.wake();
    expect(parked.due()).toEqual([2, 1]);
  });

  it('leave what is watched besides alone, and while no more fit, calls stay with the kernel', () => {
    const parked = new Parked();
    const [listener, caller] = pair();
    const [target, ends] = pair();
    parked.watch(0, listener);
    parked.watch(1, target);
    writeSync(caller, 'x');
    parked.wait();
    expect([parked.events(0) & POLLIN, parked.events(1)]).toEqual([POLLIN, 0]);
    for (let n = 0; n < MAX_PARKED; n += 1) {
      expect(parked.hasRoom).toBe(true);
      parked.add(parked.freePlace(), undefined);
    }
    expect(parked.hasRoom).toBe(false);
    expect(() => parked.freePlace()).toThrow(RangeError);
    writeSync(ends, 'x');
    parked.wait();
    expect([parked.events(0), parked.events(1) & POLLIN]).toEqual([0, POLLIN]);
    parked.remove(40);
    expect(parked.freePlace()).toBe(40);
    parked.watch(1, -1);
    parked.wait();
    expect([parked.events(0) & POLLIN, parked.events(1)]).toEqual([POLLIN, 0]);
  });

  it('keep nothing of 200,000 turns in which they are tried and wait on', () => {
    let now = 0;
    const parked = new Parked(() => now);
    const [here] = pair();
    parked.watch(0, here);
    parked.add(1, undefined);
    parked.add(2, { fd: here, events: POLLIN });
    let tries = 0;
    const turn = (): void => {
      now += 1;
      parked.wait();
      for (const place of parked.due()) {
        tries += 1;
        parked.add(place, place === 1 ? undefined : { fd: here, events: POLLIN });
      }
    };
    const grown = growth(turn);
    expect(tries).toBeGreaterThan(now); // by the clock each millisecond, by the other each 50
    expect(parked.count).toBe(2);
    expect(grown.descriptors).toBe(0);
    expect(grown.bytes).toBeLessThan(NOTHING);
  });
});
