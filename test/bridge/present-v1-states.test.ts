import { describe, expect, test } from 'vitest';
import { presentV1 } from '../../src/bridge/index.ts';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import { V1 } from '../../src/v1/states.ts';
import { V2, v2StateName, type V2State, type V2StateName } from '../../src/v2/states.ts';
import { noise } from '../support/bytes.ts';
import { failure, outcome } from '../support/errno.ts';
import { oldVmm, type OldVmm } from '../support/presented.ts';
import { TapeV2 } from '../support/tape-v2.ts';
import { readRegister, v1User } from '../support/v1-user.ts';

/** Brings a bridged device into a v1 state, by writes that the table allows. */
function at(from: number, flags: number): OldVmm {
  const vmm = oldVmm({ flags });
  if (from !== 1) vmm.user.setState(from);
  expect(vmm.user.state()).toBe(from);
  vmm.spy.log.length = 0;
  return vmm;
}

/** v1 write, from where, and the v2 state that is asked for. */
const taken: readonly (readonly [to: number, from: readonly number[], requested: V2StateName])[] = [
  [1, [2, 3, 4, 0], 'RUNNING'],
  [0, [1, 2, 3, 4], 'STOP'],
  [3, [1, 0], 'PRE_COPY'],
  [2, [0, 1, 3], 'STOP_COPY'],
  [4, [0, 1], 'RESUMING'],
];
const withPreCopy = [5, 7];
const withoutPreCopy = [1, 3];
const rows = taken.flatMap(([to, froms, requested]) => froms.map((from) => ({ from, to, requested })));

describe('presentV1 write of device_state', () => {
  const cases = withPreCopy.flatMap((flags) => rows.map((row) => ({ ...row, flags })));
  test.each(cases)('flags $flags: $to in $from asks for $requested', ({ flags, from, to, requested }) => {
    const { user, tape, spy } = at(from, flags);
    user.setState(to);
    expect(spy.log).toEqual([`setState ${requested}`]);
    expect([user.state(), v2StateName(tape.state)]).toEqual([to, requested]);
  });

  const virtual = withoutPreCopy.flatMap((flags) => rows.map((row) => ({ ...row, flags })));
  test.each(virtual)('flags $flags, without PRE_COPY: $to in $from', ({ flags, from, to, requested }) => {
    const { user, tape, spy } = at(from, flags);
    user.setState(to);
    const state = to === 3 ? 'RUNNING' : requested;
    const runsAlready = state === 'RUNNING' && (from === 1 || from === 3);
    expect(spy.log).toEqual(runsAlready ? [] : [`setState ${state}`]);
    expect([user.state(), v2StateName(tape.state)]).toEqual([to, state]);
  });

  const shown = [0, 1, 2, 3, 4];
  const values = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x8000_0001, 0xffff_ffff];
  const refused = [1, 3, 5, 7].flatMap((flags) =>
    shown.flatMap((from) =>
      values
        .filter((to) => to !== from && !rows.some((row) => row.from === from && row.to === to))
        .map((to) => ({ flags, from, to })),
    ),
  );
  test.each(refused)('flags $flags: $to in $from is EINVAL, nothing changes', ({ flags, from, to }) => {
    const { user, tape, spy } = at(from, flags);
    const before = tape.state;
    expect(outcome(() => user.setState(to))).toBe('EINVAL');
    expect([user.state(), tape.state, spy.log]).toEqual([from, before, []]);
  });

  test('2 to 3 is EINVAL and the session goes on', () => {
    const { user } = oldVmm({ answers: [noise(100)] });
    user.setState(V1.STOP_COPY);
    expect(user.pending()).toBe(100);
    expect(outcome(() => user.setState(V1.PRE_COPY))).toBe('EINVAL');
    expect(user.state()).toBe(V1.STOP_COPY);
    expect(user.buffer()).toEqual(noise(100));
  });

  test.each(shown)('%i again is no request and keeps the session', (state) => {
    const { user, spy } = at(state, 7);
    user.setState(state);
    expect([user.state(), spy.log]).toEqual([state, []]);
  });
});

describe('presentV1 device_state', () => {
  test.each<[V2StateName, number]>([
    ['RUNNING', 1],
    ['RUNNING_P2P', 1],
    ['PRE_COPY', 3],
    ['PRE_COPY_P2P', 3],
    ['STOP', 0],
    ['STOP_COPY', 2],
    ['RESUMING', 4],
    ['ERROR', 6],
  ])('shows %s as %i', (name, shown) => {
    const { user, tape } = oldVmm({}, { onError: 'report' });
    tape.state = V2[name];
    expect([user.state(), user.state()]).toEqual([shown, shown]);
  });

  test.each<[V2State, number, V2State]>([
    [V2.RUNNING_P2P, 1, V2.RUNNING],
    [V2.PRE_COPY_P2P, 3, V2.PRE_COPY],
  ])('leaves the P2P state %i, which somebody else asked for, where %i is asked for again', (p2p, value, state) => {
    const { user, tape } = oldVmm();
    if (value === 3) user.setState(V1.PRE_COPY);
    tape.setState(p2p);
    user.setState(value);
    expect([user.state(), tape.state]).toEqual([value, state]);
  });
});

test('presentV1 asks for the state of a device that works once for each register, as each is a system call', () => {
  const { user, tape, device } = oldVmm({ answers: [noise(10)] });
  user.setState(3);
  let asked = 0;
  const getState = tape.getState.bind(tape);
  tape.getState = () => {
    asked += 1;
    return getState();
  };
  for (const register of ['device_state', 'pending_bytes', 'data_offset', 'data_size'] as const) {
    asked = 0;
    readRegister(device, register);
    expect(asked).toBe(1);
  }
});

describe('presentV1 virtual pre-copy', () => {
  test('is empty and costs nothing', () => {
    const { user, spy } = oldVmm({ flags: 1, answers: [noise(10)], stopCopyLength: 500 });
    user.setState(V1.PRE_COPY);
    expect([user.pending(), user.offset(), user.size(), user.pending()]).toEqual([0, DATA_OFFSET, 0, 0]);
    expect(spy.log).toEqual([]);
  });

  test('shows the cost of stop-and-copy where that is asked for', () => {
    const { user } = oldVmm({ flags: 1, stopCopyLength: 500 }, { pendingIncludesStopCopy: true });
    user.setState(V1.PRE_COPY);
    expect(user.pending()).toBe(500);
  });

  test('goes on while somebody else brings the device into RUNNING_P2P', () => {
    const { user, tape } = oldVmm({ flags: 3, answers: [noise(10)] });
    user.setState(V1.PRE_COPY);
    tape.setState(V2.RUNNING_P2P);
    expect([user.state(), user.pending()]).toEqual([3, 0]);
    user.setState(V1.STOP_COPY);
    expect([user.state(), user.drain()]).toEqual([2, [noise(10)]]);
  });

  test('ends where the device was stopped behind it', () => {
    const { user, tape } = oldVmm({ flags: 3 });
    user.setState(V1.PRE_COPY);
    tape.setState(V2.STOP);
    expect(user.state()).toBe(V1.STOP);
    tape.setState(V2.RUNNING);
    expect(user.state()).toBe(V1.RUNNING);
  });
});

describe('presentV1 after a failed write of device_state', () => {
  const hops: readonly (readonly [flags: number, from: number, to: number, hop: V2State])[] = [
    [7, 1, 3, V2.PRE_COPY],
    [7, 1, 2, V2.RUNNING_P2P],
    [7, 1, 2, V2.STOP],
    [7, 1, 2, V2.STOP_COPY],
    [7, 1, 0, V2.STOP],
    [7, 1, 4, V2.RESUMING],
    [7, 0, 1, V2.RUNNING],
    [7, 0, 3, V2.RUNNING_P2P],
    [7, 0, 3, V2.RUNNING],
    [7, 0, 3, V2.PRE_COPY],
    [7, 0, 4, V2.RESUMING],
    [7, 3, 2, V2.PRE_COPY_P2P],
    [7, 3, 2, V2.STOP_COPY],
    [7, 3, 1, V2.RUNNING],
    [7, 2, 0, V2.STOP],
    [7, 4, 1, V2.STOP],
    [1, 1, 2, V2.STOP_COPY],
    [3, 3, 2, V2.RUNNING_P2P],
    [3, 3, 2, V2.STOP],
    [3, 3, 2, V2.STOP_COPY],
    [3, 3, 0, V2.STOP],
    [5, 3, 0, V2.RUNNING],
  ];
  test.each(hops)(
    'flags %i, %i to %i failing before v2 state %i: the errno, and the state before',
    (flags, from, to, hop) => {
      const { user, tape } = at(from, flags);
      tape.failingHops.push({ hop, error: failure('EBUSY') });
      const before = tape.state;
      expect(outcome(() => user.setState(to))).toBe('EBUSY');
      expect([user.state(), tape.state]).toEqual([from, before]);
      user.setState(to);
      expect(user.state()).toBe(to);
    },
  );

  const losing: readonly (readonly [flags: number, from: number, to: number, hop: V2State, rests: V2State])[] = [
    [7, 2, 1, V2.RUNNING_P2P, V2.STOP],
    [7, 2, 1, V2.RUNNING, V2.STOP],
    [7, 4, 1, V2.RUNNING_P2P, V2.STOP],
    [7, 4, 1, V2.RUNNING, V2.STOP],
    [7, 3, 0, V2.RUNNING_P2P, V2.RUNNING],
    [7, 3, 0, V2.STOP, V2.RUNNING],
  ];
  test.each(losing)(
    'flags %i, %i to %i failing before v2 state %i, with the session gone: the errno, and the device rests in v2 state %i',
    (flags, from, to, hop, rests) => {
      const { user, tape } = at(from, flags);
      tape.failingHops.push({ hop, error: failure('EBUSY') });
      expect(outcome(() => user.setState(to))).toBe('EBUSY');
      expect([tape.state, user.state()]).toEqual([rests, rests === V2.STOP ? 0 : 1]);
      expect(outcome(() => user.setState(to))).toBe('OK'); // told already: no loss to report
      expect([user.state(), outcome(() => user.pending())]).toEqual([to, 'OK']);
    },
  );

  test('shows where the device is if the way back fails too, and says so', () => {
    const { user, tape, warnings } = oldVmm();
    tape.failingHops.push(
      { hop: V2.STOP_COPY, error: failure('EBUSY') },
      { hop: V2.RUNNING_P2P, error: failure('EIO') },
    );
    expect(outcome(() => user.setState(V1.STOP_COPY))).toBe('EBUSY');
    expect([user.state(), tape.state]).toEqual([0, V2.STOP]);
    expect(warnings).toEqual([expect.stringMatching(/^the device is left in STOP: /)]);
  });

  test.each([
    [3, V2.PRE_COPY],
    [2, V2.STOP_COPY],
    [4, V2.RESUMING],
  ])('%i whose session has begun in spite of the error: the user finds the device in it', (to, state) => {
    const { user, tape, spy } = oldVmm();
    spy.options = {
      before: (call) => {
        if (call !== 'setState' || tape.state === state) return;
        tape.setState(state);
        throw failure('EBUSY');
      },
    };
    expect(outcome(() => user.setState(to))).toBe('EBUSY');
    expect([user.state(), tape.state]).toEqual([to, state]);
    expect(outcome(() => user.setState(to))).toBe('OK');
  });

  test('needs nobody who listens for that', () => {
    const tape = new TapeV2();
    const user = v1User(presentV1(tape));
    tape.failingHops.push(
      { hop: V2.STOP_COPY, error: failure('EBUSY') },
      { hop: V2.RUNNING_P2P, error: failure('EIO') },
    );
    expect(outcome(() => user.setState(2))).toBe('EBUSY');
    expect(user.state()).toBe(0);
  });

  test('resets a device whose way back ends in ERROR, at once', () => {
    const { user, tape, spy } = oldVmm();
    tape.failingHops.push(
      { hop: V2.STOP_COPY, error: failure('EBUSY') },
      { hop: V2.RUNNING_P2P, error: failure('EIO'), fatal: true },
    );
    expect(outcome(() => user.setState(V1.STOP_COPY))).toBe('EBUSY');
    expect([tape.state, spy.log.at(-1)]).toEqual([V2.RUNNING, 'reset']);
    expect(user.state()).toBe(V1.RUNNING);
  });
});
