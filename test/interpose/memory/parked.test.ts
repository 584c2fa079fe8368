import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { POLLIN } from '../../../src/abi/fcntl.ts';
import { MAX_PARKED } from '../../../src/interpose/memory/journal.ts';
import { Ledger, ledgerSize, Ledgers, LEDGERS_SIZE } from '../../../src/interpose/memory/ledger.ts';
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

  const yes = (): boolean => true;

  function ledgers(): [one: Ledger, other: Ledger] {
    const all = new Ledgers(new Uint8Array(LEDGERS_SIZE));
    return [new Ledger(all, 0, new Uint8Array(ledgerSize(8)), 8), new Ledger(all, 1, new Uint8Array(ledgerSize(8)), 8)];
  }

  /** Has what waits tried, until a call is due whose place is this; how often there was something to try. */
  function triesUntil(parked: Parked, place: number, limit: number): number {
    for (let tries = 1; tries <= limit; tries += 1) {
      parked.wait();
      if (parked.due(yes).includes(place)) return tries;
    }
    throw new Error(`place ${place} is not due after ${limit} waits`);
  }

  it('are tried when their device’s descriptor is ready, and not by the millisecond until then', () => {
    const parked = new Parked();
    const [here, there] = pair();
    parked.add(1, { readiness: { fd: here, events: POLLIN } }, []);
    const begin = performance.now();
    parked.wait();
    expect(performance.now() - begin, 'by the clock').toBeGreaterThan(25);
    expect(parked.due(yes)).toEqual([1]);
    parked.add(1, { readiness: { fd: here, events: POLLIN } }, []);
    writeSync(there, 'x');
    parked.wait();
    expect(parked.due(yes)).toEqual([1]);
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
        parked.add(1, { readiness: { fd: file, events: POLLIN } }, []);
        const begin = performance.now();
        parked.wait();
        if (n > 0) expect(performance.now() - begin).toBeGreaterThan(0.9); // no loop that turns at once
        triesUntil(parked, 1, 10);
      }
    } finally {
      closeSync(file);
    }
  });

  it('are tried each for itself: one by the clock, one by its descriptor', () => {
    const parked = new Parked();
    const [here, there] = pair();
    parked.add(1, { readiness: { fd: here, events: POLLIN } }, []);
    parked.add(2, {}, []);
    triesUntil(parked, 2, 10);
    parked.add(2, {}, []);
    writeSync(there, 'x');
    expect(triesUntil(parked, 1, 2)).toBe(1);
  });

  it('are tried at once when a call was served that changed what they are about', () => {
    const parked = new Parked();
    const [one, other] = ledgers();
    const [quiet] = pair();
    parked.add(1, { readiness: { fd: quiet, events: POLLIN } }, [one]);
    parked.add(2, { readiness: { fd: quiet, events: POLLIN } }, [other]);
    parked.add(3, { readiness: { fd: quiet, events: POLLIN } }, [other, one]);
    parked.wake([]);
    expect(parked.due(yes)).toEqual([]);
    parked.wake([one]);
    expect(parked.due(yes)).toEqual([1, 3]);
  });

  it('are tried at the time that their device has named, and by the clock if that is over', () => {
    const parked = new Parked();
    const now = (): number => Number(process.hrtime.bigint() / 1000n);
    const at = now() + 20_000;
    parked.add(1, { readiness: { at } }, []);
    parked.wait();
    expect(parked.due(yes)).toEqual([1]);
    expect(now()).toBeGreaterThan(at - 100);
    parked.add(1, { readiness: { at } }, []);
    expect(parked.due(yes), 'no loop that turns at once').toEqual([]);
  });

  it('are only looked after by the clock if their descriptor is sure to tell, however often it has', () => {
    const parked = new Parked();
    const [here, there] = pair();
    const [one] = ledgers();
    const reason = { readiness: { fd: here, events: POLLIN }, underWay: true };
    for (let n = 0; n < 3; n += 1) {
      parked.add(1, reason, [one]);
      const asked: number[] = [];
      parked.wait();
      expect(parked.due((place) => asked.push(place) > 0)).toEqual([]);
      expect(asked).toEqual([1]);
      writeSync(there, 'x');
      parked.wait();
      expect(parked.due(yes)).toEqual([1]);
      readSync(here, new Uint8Array(1));
    }
    parked.add(1, reason, [one]);
    parked.wait();
    expect(
      parked.due(() => false),
      'whose caller is gone',
    ).toEqual([1]);
    parked.add(1, reason, [one]);
    parked.wake([one]);
    expect(parked.due(yes)).toEqual([1]);
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
      parked.add(parked.freePlace(), {}, []);
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
    parked.add(1, {}, []);
    parked.add(2, { readiness: { fd: here, events: POLLIN } }, []);
    let tries = 0;
    const turn = (): void => {
      now += 1;
      parked.wait();
      for (const place of parked.due(yes)) {
        tries += 1;
        parked.add(place, place === 1 ? {} : { readiness: { fd: here, events: POLLIN } }, []);
      }
    };
    const grown = growth(turn);
    expect(tries).toBeGreaterThan(now); // by the clock each millisecond, by the other each 50
    expect(parked.count).toBe(2);
    expect(grown.descriptors).toBe(0);
    expect(grown.bytes).toBeLessThan(NOTHING);
  });
});
