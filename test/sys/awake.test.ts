import { writeSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { POLLIN } from '../../src/abi/fcntl.ts';
import { AwakeWait } from '../../src/sys/awake.ts';
import { createEventFd } from '../../src/sys/fd.ts';
import { PollSet } from '../../src/sys/poll.ts';

/** A set in which something comes when it is looked at for the nth time, and how often it was. */
class Counted {
  looks = 0;
  comes = Number.POSITIVE_INFINITY;

  wait(_count: number, milliseconds?: number): boolean {
    expect(milliseconds).toBe(0);
    this.looks += 1;
    return this.looks >= this.comes;
  }
}

/** Whether a wait has looked, and what it has said. */
function tried(awake: AwakeWait, set: Counted): { looked: boolean; came: boolean } {
  set.looks = 0;
  const came = awake.wait(set, 1);
  return { looked: set.looks > 0, came };
}

describe('a wait that is awake', () => {
  it('has the events of what comes', () => {
    using event = createEventFd();
    const set = new PollSet(1);
    set.set(0, event.number, POLLIN);
    expect(new AwakeWait(2).wait(set, 1)).toBe(false);
    expect(set.events(0)).toBe(0);
    writeSync(event.number, new Uint8Array(BigUint64Array.of(1n).buffer));
    expect(new AwakeWait(2).wait(set, 1)).toBe(true);
    expect(set.events(0)).toBe(POLLIN);
  });

  it('is not tried any more where it is in vain, but now and then, and again where it is not', () => {
    const [awake, set] = [new AwakeWait(2), new Counted()];
    const inVain = { looked: true, came: false };
    for (let n = 0; n < 4; n += 1) expect(tried(awake, set)).toEqual(inVain);
    const looks = Array.from({ length: 32 }, () => tried(awake, set).looked);
    expect(looks.flatMap((looked, n) => (looked ? [n] : []))).toEqual([15, 31]);
    set.comes = 1;
    const came = Array.from({ length: 20 }, () => tried(awake, set).came);
    expect(came).toEqual(Array.from({ length: 20 }, (_, n) => n >= 15));
  });

  it('goes on where it is worth while three times of four', () => {
    const [awake, set] = [new AwakeWait(2), new Counted()];
    for (let n = 0; n < 100; n += 1) {
      set.comes = n % 4 === 3 ? Number.POSITIVE_INFINITY : 1;
      expect(tried(awake, set)).toEqual({ looked: true, came: n % 4 !== 3 });
    }
  });

  it('is none on the only processor', () => {
    const [awake, set] = [new AwakeWait(1), new Counted()];
    set.comes = 1;
    expect(tried(awake, set)).toEqual({ looked: false, came: false });
  });
});
