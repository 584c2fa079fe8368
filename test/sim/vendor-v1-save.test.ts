import { describe, expect, test } from 'vitest';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import { V1 } from '../../src/v1/states.ts';
import { join, noise } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';
import { v1Sim, type V1Sim } from '../support/sims.ts';
import { v1User } from '../support/v1-user.ts';

const RECORD = 32;
const PAGES = 2;

function opened(spec: string): V1Sim & { user: ReturnType<typeof v1User> } {
  const sim = v1Sim(spec);
  return Object.assign(sim, { user: v1User(sim.device) });
}

function kind(buffer: Uint8Array): number {
  return buffer[4] ?? -1;
}

/** Loads buffers into a fresh device of the SPEC and gives its memory. */
function loaded(spec: string, buffers: readonly Uint8Array[]): Uint8Array {
  const { user, bar } = opened(spec);
  user.setState(V1.RESUMING);
  for (const buffer of buffers) user.load(buffer);
  user.setState(V1.RUNNING);
  return bar;
}

describe('sim vendor-v1, saving', () => {
  test('sends header, pages and end in stop-and-copy, and pending_bytes is 0 exactly at the end', () => {
    const { user, bar } = opened('vendor-v1,size=100000,section=64K,seed=3');
    user.setState(V1.STOP_COPY);
    const kinds: number[] = [];
    const buffers: Uint8Array[] = [];
    for (let pending = user.pending(); pending > 0; pending = user.pending()) {
      const buffer = user.buffer();
      expect(buffer.length).toBeGreaterThan(0);
      kinds.push(kind(buffer));
      buffers.push(buffer);
    }
    expect(kinds).toEqual([1, 2, 2, 3]);
    expect(user.buffer()).toHaveLength(0);
    expect(loaded('vendor-v1,size=100000,section=64K', buffers)).toBeBytes(bar);
  });

  test('pending_bytes is what is left, give or take one data section', () => {
    const section = 65_536;
    for (const state of [2, 3]) {
      const { user } = opened(`vendor-v1,size=1M,section=${section},seed=3`);
      user.setState(state);
      const seen: number[] = [];
      const sizes: number[] = [];
      for (let pending = user.pending(); pending > 0; pending = user.pending()) {
        seen.push(pending);
        sizes.push(user.buffer().length);
      }
      expect(sizes.length).toBeGreaterThan(16);
      for (const [n, pending] of seen.entries()) {
        const left = sizes.slice(n).reduce((sum, size) => sum + size, 0);
        expect(Math.abs(pending - left)).toBeLessThanOrEqual(section);
      }
    }
  });

  test('a new object over the same memory goes on in any state, and with the buffer that was shown', () => {
    const spec = 'vendor-v1,size=64K,section=16K';
    const first = opened(`${spec},seed=3`);
    const later = (): ReturnType<typeof v1User> => v1User(v1Sim(`${spec},seed=3`, first.memory).device);
    for (const state of [0, 1, 3]) {
      later().setState(state);
      expect(later().state()).toBe(state);
    }
    const buffers: Uint8Array[] = [];
    while (later().pending() > 0) {
      const shown = later().buffer();
      buffers.push(later().buffer());
      expect(buffers.at(-1)).toBeBytes(shown);
    }
    later().setState(V1.STOP_COPY);
    while (later().pending() > 0) buffers.push(later().buffer());
    expect(loaded(spec, buffers)).toBeBytes(first.bar);
  });

  test('pre-copy sends all memory once, then only what the guest changed, without an end', () => {
    const { user, bar } = opened('vendor-v1,size=1M,section=64K,seed=3');
    user.setState(V1.PRE_COPY);
    const first = user.drain();
    expect(join(first.filter((buffer) => kind(buffer) === PAGES)).length).toBeGreaterThanOrEqual(2 ** 20);
    expect([user.pending(), user.pending()]).toEqual([0, 0]);

    bar[5 * 4096 + 17] = 1 + (bar[5 * 4096 + 17] ?? 0);
    bar.set(noise(100, 9), 200 * 4096 - 50);
    expect(user.pending()).toBeGreaterThan(0);
    const second = user.drain();
    expect(second.map((buffer) => buffer.length)).toEqual([RECORD + 4096, RECORD + 2 * 4096]);
    expect(user.pending()).toBe(0);

    bar[7] = 1 + (bar[7] ?? 0);
    user.setState(V1.STOP_COPY);
    const last = user.drain();
    expect(last.map((buffer) => [kind(buffer), buffer.length])).toEqual([
      [2, RECORD + 4096],
      [3, RECORD],
    ]);
    expect(loaded('vendor-v1,size=1M,section=64K', [...first, ...second, ...last])).toBeBytes(bar);
  });

  test('looks at content: a write of what was there already dirties nothing', () => {
    const { user, bar } = opened('vendor-v1,size=64K,seed=3');
    user.setState(V1.PRE_COPY);
    user.drain();
    bar.set(bar.slice());
    expect(user.pending()).toBe(0);
  });

  test('dirty=2: the device changes pages of its own, pre-copy converges, the destination is equal', () => {
    const spec = 'vendor-v1,size=256K,section=16K';
    const { user, bar } = opened(`${spec},seed=3,dirty=2`);
    const before = bar.slice();
    user.setState(V1.PRE_COPY);
    const buffers: Uint8Array[] = [];
    for (let rounds = 0; rounds < 500 && user.pending() > 0; rounds += 1) buffers.push(user.buffer());
    expect(user.pending()).toBe(0);
    expect(buffers.length).toBeGreaterThan(64);
    expect(bar).not.toBeBytes(before);
    user.setState(V1.STOP_COPY);
    buffers.push(...user.drain());
    expect(loaded(spec, buffers)).toBeBytes(bar);
  });

  test('a buffer is the same until pending_bytes is read, however often it is looked at', () => {
    const { user, bar } = opened('vendor-v1,size=64K,section=16K,seed=3');
    user.setState(V1.PRE_COPY);
    user.pending();
    user.buffer();
    user.pending(); // the header is consumed
    const first = user.buffer();
    bar.fill(0xee);
    expect(user.buffer()).toBeBytes(first);
    expect(user.buffer()).toBeBytes(first);
    user.setState(V1.STOP_COPY); // a state write is no acknowledgement either
    expect(user.buffer()).toBeBytes(first);
    user.pending();
    expect(user.buffer()).not.toBeBytes(first);
  });

  test('a buffer that was shown and not acknowledged by the end of the session is sent by the next', () => {
    const spec = 'vendor-v1,size=64K,section=16K';
    const { user, bar } = opened(`${spec},seed=3`);
    user.setState(V1.PRE_COPY);
    user.pending();
    user.buffer();
    user.setState(V1.RUNNING);
    user.setState(V1.STOP_COPY);
    expect(loaded(spec, user.drain())).toBeBytes(bar);
  });

  test('a session that is abandoned and entered again begins from the start', () => {
    const { user } = opened('vendor-v1,size=64K,section=16K,seed=3');
    user.setState(V1.STOP_COPY);
    const whole = user.drain();
    user.setState(V1.STOP);
    user.setState(V1.STOP_COPY);
    expect(user.drain()).toBeBytes(whole);
  });

  test('has nothing to read when it runs, is stopped or resumes', () => {
    const { user } = opened('vendor-v1,seed=3');
    for (const state of [1, 0, 4]) {
      user.setState(state);
      expect([user.pending(), user.size(), user.offset()]).toEqual([0, 0, DATA_OFFSET]);
    }
  });
});

describe('sim vendor-v1, device_state', () => {
  const shown = [0, 1, 2, 3, 4];
  const allowed = new Set(['01', '02', '03', '04', '10', '12', '13', '14', '20', '21', '30', '31', '32', '40', '41']);
  const cases = shown.flatMap((from) => [...shown, 5, 6, 7, 8, 0x8000_0001].map((to) => ({ from, to })));
  test.each(cases)('from $from to $to', ({ from, to }) => {
    const { user } = opened('vendor-v1');
    if (from === 0) user.setState(V1.STOP);
    if (from > 1) user.setState(from);
    const taken = from === to || allowed.has(`${from}${to}`);
    const incomplete = from === 4 && to !== 4; // nothing was loaded
    expect(outcome(() => user.setState(to))).toBe(taken && !incomplete ? 'OK' : 'EINVAL');
    expect(user.state()).toBe(taken && !incomplete ? to : from);
  });

  test('is 1 after open and after a reset from anywhere', () => {
    for (const state of shown) {
      const { user, device } = opened('vendor-v1');
      expect(user.state()).toBe(V1.RUNNING);
      if (state !== 1) user.setState(state);
      device.reset();
      expect([user.state(), user.pending(), user.size()]).toEqual([1, 0, 0]);
    }
  });
});

describe('sim vendor-v1,libvfio=1', () => {
  /** lib/migration_priv.h of libvfio-user b52bff7: migr_states, restated; of pre-copy, a slip of its own makes 1 of 3. */
  const taken = new Set([
    '0>0',
    '0>1',
    '1>0',
    '1>1',
    '1>2',
    '1>3',
    '1>4',
    '2>0',
    '2>1',
    '2>2',
    '3>0',
    '3>1',
    '3>2',
    '4>1',
    '4>4',
  ]);

  test('takes the changes of device_state that libvfio-user takes, and says 1 or 0 for pending_bytes', () => {
    for (const from of [0, 1, 2, 3, 4]) {
      for (const to of [0, 1, 2, 3, 4, 5, 6, 7]) {
        const { user, device } = opened('vendor-v1,size=20000,section=8K,libvfio=1');
        if (from !== 1) user.setState(from);
        if (from === 4) load(device);
        expect([`${from}>${to}`, outcome(() => user.setState(to)) === 'OK']).toEqual([
          `${from}>${to}`,
          taken.has(`${from}>${to}`),
        ]);
      }
    }
  });

  test('says 1 or 0 for pending_bytes, and loses nothing by it', () => {
    const { user, bar } = opened('vendor-v1,size=20000,section=8K,seed=3,libvfio=1');
    user.setState(V1.PRE_COPY);
    expect(user.pending()).toBe(1);
    user.setState(V1.STOP_COPY);
    const buffers = user.drain();
    expect(user.pending()).toBe(0);
    expect(loaded('vendor-v1,size=20000,section=8K', buffers)).toBeBytes(bar);
  });

  /** A whole state, so that RESUMING can be left. */
  function load(device: V1Sim['device']): void {
    const source = opened('vendor-v1,size=20000,section=8K');
    source.user.setState(V1.STOP_COPY);
    const target = v1User(device);
    for (const buffer of source.user.drain()) target.load(buffer);
  }
});
