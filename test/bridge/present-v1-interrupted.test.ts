import { describe, expect, test } from 'vitest';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import { V1 } from '../../src/v1/states.ts';
import { V2, type V2State } from '../../src/v2/states.ts';
import { join, noise } from '../support/bytes.ts';
import { sometimes, failure, notYet, outcome } from '../support/errno.ts';
import { oldVmm } from '../support/presented.ts';
import { writeRegister } from '../support/v1-user.ts';

const state = noise(20_000);
const eintr = (): ReturnType<typeof failure> => failure('EINTR', 'ERR_SYSCALL');

/** Repeats what says "not yet", as a supervisor does. */
function again<T>(call: () => T): T {
  for (let tries = 0; tries < 10; tries += 1) {
    let result: T | undefined;
    const answer = outcome(() => {
      result = call();
    });
    if (answer === 'OK') return result as T;
    expect(answer).toBe('EAGAIN');
  }
  throw new Error('never ready');
}

describe('presentV1 EINTR', () => {
  test('of reads of the data fd is not seen', () => {
    const { user } = oldVmm({
      stopAnswers: [eintr(), state.subarray(0, 100), eintr(), eintr(), state.subarray(100), eintr()],
    });
    user.setState(V1.STOP_COPY);
    expect(user.drain()).toBeBytes(state);
  });

  test('of writes of the data fd is not seen, and doubles nothing', () => {
    const { user, tape } = oldVmm();
    tape.writeAnswers.push(eintr(), 100, eintr(), eintr(), 1, undefined);
    user.setState(V1.RESUMING);
    user.load(state.subarray(0, 8192));
    expect(tape.taken).toBeBytes(state.subarray(0, 8192));
  });
});

describe('presentV1 EAGAIN', () => {
  test('before the first byte reaches the user; after it, what there is is staged', () => {
    const { user } = oldVmm({ stopAnswers: [notYet(), state.subarray(0, 100), notYet(), state.subarray(100, 150)] });
    user.setState(V1.STOP_COPY);
    expect(outcome(() => user.pending())).toBe('EAGAIN');
    expect(user.pending()).toBe(100);
    expect(user.buffer()).toEqual(state.subarray(0, 100));
    expect(user.pending()).toBe(50);
    expect(user.buffer()).toEqual(state.subarray(100, 150));
    expect(user.pending()).toBe(0);
  });

  test('at any access of saving: repeating it loses and doubles nothing', () => {
    const answers = Array.from({ length: 30 }, (_, n) => state.subarray(n * 600, (n + 1) * 600));
    const { user, spy } = oldVmm({
      answers: answers.slice(0, 9),
      stopAnswers: answers.slice(9),
      precopyInfo: { initialBytes: 9, dirtyBytes: 0 },
    });
    const inject = sometimes();
    spy.options = { before: inject };
    again(() => user.setState(V1.PRE_COPY));
    const received: Uint8Array[] = [];
    for (let n = 0; n < 3; n += 1) {
      expect(again(() => user.pending())).toBeGreaterThan(0);
      again(() => user.offset());
      received.push(again(() => user.buffer()));
    }
    again(() => user.setState(V1.STOP_COPY));
    while (again(() => user.pending()) > 0) received.push(again(() => user.buffer()));
    expect(received).toBeBytes(spy.bytes('out'));
    expect(received).toBeBytes(answers);
  });

  test('in the middle of a data_size write: the repetition goes on where it stopped', () => {
    const { user, tape, device } = oldVmm();
    tape.writeAnswers.push(notYet(), 100, notYet(), 50, notYet(), notYet(), undefined);
    user.setState(V1.RESUMING);
    device.write(DATA_OFFSET, state.subarray(0, 5000));
    again(() => writeRegister(device, 'data_size', 5000));
    user.load(state.subarray(5000, 6000));
    expect(tape.taken).toBeBytes(state.subarray(0, 6000));
  });

  const hops: readonly (readonly [flags: number, from: number, to: number, hop: V2State])[] = [
    [7, 1, 3, V2.PRE_COPY],
    [7, 3, 2, V2.PRE_COPY_P2P],
    [7, 3, 2, V2.STOP_COPY],
    [7, 3, 1, V2.RUNNING],
    [7, 3, 0, V2.RUNNING],
    [7, 3, 0, V2.RUNNING_P2P],
    [7, 3, 0, V2.STOP],
    [7, 2, 0, V2.STOP],
    [7, 2, 1, V2.STOP],
    [7, 2, 1, V2.RUNNING_P2P],
    [7, 2, 1, V2.RUNNING],
    [7, 4, 0, V2.STOP],
    [7, 4, 1, V2.STOP],
    [7, 4, 1, V2.RUNNING_P2P],
    [7, 4, 1, V2.RUNNING],
    [7, 0, 3, V2.RUNNING_P2P],
    [7, 0, 3, V2.RUNNING],
    [7, 0, 3, V2.PRE_COPY],
    [7, 1, 2, V2.STOP],
    [7, 1, 2, V2.STOP_COPY],
    [7, 1, 4, V2.STOP],
    [7, 1, 4, V2.RESUMING],
    [3, 3, 2, V2.STOP],
    [3, 3, 2, V2.STOP_COPY],
    [5, 3, 0, V2.STOP],
  ];
  test.each(hops)(
    'flags %i, %i to %i "not yet" before v2 state %i: repeating the write is enough',
    (flags, from, to, hop) => {
      const { user, tape, warnings } = oldVmm({ flags, stopAnswers: [state.subarray(0, 100)] });
      if (from !== 1) user.setState(from);
      tape.failingHops.push({ hop, error: notYet() }, { hop, error: notYet() });
      const results = Array.from({ length: 3 }, () => outcome(() => user.setState(to)));
      expect(results).toEqual(['EAGAIN', 'EAGAIN', 'OK']);
      expect([user.state(), warnings]).toEqual([to, []]);
      if (to === 2) expect(join(user.drain())).toEqual(state.subarray(0, 100));
      // and a session begun afterwards is no victim of a loss that was none
      user.setState(to === 4 || to === 2 ? 0 : to);
      if (user.state() < 2) user.setState(V1.STOP_COPY);
      expect(outcome(() => user.pending())).toBe('OK');
    },
  );
});

describe('presentV1 deferred error', () => {
  test.each(['EIO', 'ENOMEM', 'ETIMEDOUT'] as const)(
    '%s behind staged bytes comes after them, with its errno',
    (errno) => {
      const { user, spy } = oldVmm({ stopAnswers: [state.subarray(0, 300), failure(errno), state.subarray(300, 900)] });
      user.setState(V1.STOP_COPY);
      expect(user.pending()).toBeGreaterThan(0);
      const received = [user.buffer()];
      expect(outcome(() => user.pending())).toBe(errno);
      received.push(...user.drain());
      expect(received).toBeBytes(state.subarray(0, 900));
      expect(received).toBeBytes(spy.bytes('out'));
    },
  );

  test('in pre-copy comes with the data_offset that needed it', () => {
    const { user } = oldVmm({
      answers: [state.subarray(0, 300), failure('EIO')],
      precopyInfo: { initialBytes: 1, dirtyBytes: 0 },
    });
    user.setState(V1.PRE_COPY);
    expect(user.buffer()).toHaveLength(300);
    expect(user.pending()).toBe(1);
    expect(outcome(() => user.offset())).toBe('EIO');
  });

  test('does not outlive its session', () => {
    const { user, tape } = oldVmm({ stopAnswers: [state.subarray(0, 300), failure('EIO')] });
    user.setState(V1.STOP_COPY);
    user.pending();
    user.setState(V1.STOP);
    tape.stopAnswers.push(state.subarray(0, 10));
    user.setState(V1.STOP_COPY);
    expect(join(user.drain())).toEqual(state.subarray(0, 10));
  });

  test('without staged bytes comes at once', () => {
    const { user } = oldVmm({ stopAnswers: [failure('EIO'), state.subarray(0, 10)] });
    user.setState(V1.STOP_COPY);
    expect(outcome(() => user.pending())).toBe('EIO');
    expect(join(user.drain())).toEqual(state.subarray(0, 10));
  });

  test.each([-1, 8193, 0.5, Number.NaN])('a driver that claims to have read %d bytes is an EIO', (claim) => {
    const { user } = oldVmm({ stopAnswers: [claim] });
    user.setState(V1.STOP_COPY);
    expect(outcome(() => user.pending())).toBe('EIO');
  });

  test('an exception that is none of ours loses no staged byte', () => {
    const { user, spy } = oldVmm({ stopAnswers: [state.subarray(0, 300), state.subarray(300, 600)] });
    user.setState(V1.STOP_COPY);
    let reads = 0;
    spy.options = {
      before: (call) => {
        reads += call === 'read' ? 1 : 0;
        if (reads === 2) throw new TypeError('a bug elsewhere');
      },
    };
    expect(() => user.pending()).toThrow('a bug elsewhere');
    spy.options = {};
    expect(user.drain()).toBeBytes(state.subarray(0, 600));
  });
});
