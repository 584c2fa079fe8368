import { describe, expect, test } from 'vitest';
import { sleepUntilReady, whenReady } from '../src/wait.ts';
import { failure, notYet, outcome } from './support/errno.ts';

describe('whenReady', () => {
  test('repeats while the device says "not yet", with what the device names each time, and gives the result', () => {
    const waits: unknown[] = [];
    let calls = 0;
    const result = whenReady(
      () => {
        calls += 1;
        if (calls < 4) throw notYet({ fd: calls, events: 1 });
        return calls;
      },
      (readiness) => waits.push(readiness),
    );
    expect([result, waits]).toEqual([4, [1, 2, 3].map((fd) => ({ fd, events: 1 }))]);
  });

  test('passes any other error on without waiting', () => {
    let waits = 0;
    const count = (): void => {
      waits += 1;
    };
    const fail = (): never => {
      throw failure('EIO');
    };
    expect(outcome(() => whenReady(fail, count))).toBe('EIO');
    expect(waits).toBe(0);
  });
});

describe('sleepUntilReady', () => {
  test('sleeps about a millisecond', () => {
    const start = performance.now();
    for (let n = 0; n < 5; n += 1) sleepUntilReady();
    expect(performance.now() - start).toBeGreaterThanOrEqual(4);
  });
});
