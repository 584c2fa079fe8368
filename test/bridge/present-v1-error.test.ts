import { describe, expect, test } from 'vitest';
import { V1 } from '../../src/v1/states.ts';
import { V2, type V2State } from '../../src/v2/states.ts';
import { join, noise } from '../support/bytes.ts';
import { failure, outcome, thrownBy } from '../support/errno.ts';
import { oldVmm, type OldVmm } from '../support/presented.ts';

const bytes = noise(300);

describe('presentV1 onError reset', () => {
  const arcs: readonly (readonly [flags: number, from: number, to: number, hop: V2State])[] = [
    [7, 1, 3, V2.PRE_COPY],
    [7, 1, 2, V2.STOP_COPY],
    [7, 1, 0, V2.RUNNING_P2P],
    [7, 3, 2, V2.PRE_COPY_P2P],
    [7, 3, 2, V2.STOP_COPY],
    [7, 2, 0, V2.STOP],
    [7, 2, 1, V2.RUNNING],
    [7, 4, 1, V2.STOP],
    [7, 0, 1, V2.RUNNING],
    [1, 3, 2, V2.STOP_COPY],
    [3, 3, 2, V2.RUNNING_P2P],
    [3, 3, 0, V2.STOP],
  ];
  test.each(arcs)(
    'flags %i, %i to %i that ends in ERROR: the errno, a reset at once, device_state 1',
    (flags, from, to, hop) => {
      const { user, tape, spy, warnings } = oldVmm({ flags });
      if (from !== 1) user.setState(from);
      tape.failingHops.push({ hop, error: failure('EBUSY'), fatal: true });
      spy.log.length = 0;
      expect(outcome(() => user.setState(to))).toBe('EBUSY');
      expect(spy.log.at(-1)).toBe('reset');
      expect([tape.state, user.state()]).toEqual([V2.RUNNING, 1]);
      expect(warnings).toEqual(['the device is in ERROR and is reset']);
      // the user was told: nothing is held against what comes next
      for (const state of [1, 3, 2, 0, 1]) expect(outcome(() => user.setState(state))).toBe('OK');
    },
  );

  test('an error of reading that ends in ERROR: its errno, then a lost session and device_state 1', () => {
    const { user, tape, spy } = oldVmm();
    user.setState(V1.STOP_COPY);
    spy.options = {
      before: (call) => {
        if (call !== 'read') return;
        tape.fail();
        throw failure('EIO');
      },
    };
    expect(outcome(() => user.pending())).toBe('EIO');
    expect([tape.state, user.state()]).toEqual([V2.RUNNING, 1]);
    expect(outcome(() => user.pending())).toBe('EIO');
    expect(spy.log).toContain('reset');
  });

  test('behind staged bytes: the access after it fails with the same errno', () => {
    const { user, tape, spy } = oldVmm({ stopAnswers: [bytes] });
    user.setState(V1.STOP_COPY);
    let reads = 0;
    spy.options = {
      before: (call) => {
        reads += call === 'read' ? 1 : 0;
        if (call !== 'read' || reads !== 2) return;
        tape.fail();
        throw failure('ENOMEM');
      },
    };
    expect(outcome(() => user.pending())).toBe('OK');
    const answers = [user.offset, user.size, user.pending].map((access) => outcome(access));
    expect(answers).toContain('ENOMEM');
    expect(new Set(answers)).toEqual(new Set(['ENOMEM']));
    expect(user.state()).toBe(V1.RUNNING);
  });

  test('an error of writing that ends in ERROR: its errno, device_state 1, and 1 is refused once', () => {
    const { user, tape, spy } = oldVmm();
    user.setState(V1.RESUMING);
    user.load(bytes);
    spy.options = {
      before: (call) => {
        if (call !== 'write') return;
        tape.fail();
        throw failure('EFAULT');
      },
    };
    expect(outcome(() => user.load(bytes))).toBe('EFAULT');
    expect([tape.state, user.state()]).toEqual([V2.RUNNING, 1]);
    expect(outcome(() => user.setState(V1.RUNNING))).toBe('EIO');
    expect(outcome(() => user.setState(V1.RUNNING))).toBe('OK');
  });

  test('a device that fails by itself is reset when it is next looked at', () => {
    const { user, tape, warnings } = oldVmm();
    tape.fail();
    expect(user.state()).toBe(V1.RUNNING);
    expect(warnings).toEqual(['the device is in ERROR and is reset']);
  });

  test('in virtual pre-copy device_state is 1 afterwards', () => {
    const { user, tape } = oldVmm({ flags: 1 });
    user.setState(V1.PRE_COPY);
    tape.fail();
    expect(user.state()).toBe(V1.RUNNING);
  });

  test('an error that leaves no ERROR resets nothing', () => {
    const { user, tape, spy } = oldVmm({ stopAnswers: [failure('EIO'), bytes] });
    user.setState(V1.STOP_COPY);
    expect(outcome(() => user.pending())).toBe('EIO');
    expect([user.state(), tape.state]).toEqual([2, V2.STOP_COPY]);
    expect(spy.log).not.toContain('reset');
    expect(join(user.drain())).toEqual(bytes);
  });
});

describe('presentV1 onError report', () => {
  test('shows 6, which nothing but a reset leaves', () => {
    const { user, tape, spy, device } = oldVmm({}, { onError: 'report' });
    tape.failingHops.push({ hop: V2.STOP_COPY, error: failure('EBUSY'), fatal: true });
    expect(outcome(() => user.setState(V1.STOP_COPY))).toBe('EBUSY');
    expect([user.state(), tape.state]).toEqual([6, V2.ERROR]);
    for (const state of [0, 1, 2, 3, 4, 6]) expect(outcome(() => user.setState(state))).toBe('EINVAL');
    expect(spy.log).not.toContain('reset');
    device.reset();
    expect([user.state(), tape.state]).toEqual([1, V2.RUNNING]);
    expect(outcome(() => user.setState(V1.PRE_COPY))).toBe('OK');
  });

  test.each<[string, (vmm: OldVmm) => void]>([
    ['by itself', ({ tape }) => tape.fail()],
    [
      'on the way to a state',
      ({ tape, user }) => {
        tape.failingHops.push({ hop: V2.STOP_COPY, error: failure('EBUSY'), fatal: true });
        outcome(() => user.setState(V1.STOP_COPY));
      },
    ],
  ])('tells the operator once: a device that fails %s', (_, fails) => {
    for (const flags of [1, 7]) {
      const vmm = oldVmm({ flags }, { onError: 'report' });
      if (flags === 1) vmm.user.setState(V1.PRE_COPY);
      fails(vmm);
      expect([vmm.user.state(), vmm.user.state()]).toEqual([6, 6]);
      expect(vmm.warnings).toEqual(['the device is in ERROR']);
      expect(vmm.spy.log.filter((line) => line.startsWith('setState')).length).toBeLessThanOrEqual(1);
    }
  });

  test('a session that the device lost on its way to ERROR fails every data register', () => {
    const { user, tape } = oldVmm({ stopAnswers: [bytes] }, { onError: 'report' });
    user.setState(V1.STOP_COPY);
    tape.fail();
    for (const access of [user.pending, user.offset, user.size]) expect(outcome(access)).toBe('EIO');
    expect(user.state()).toBe(V1.ERROR);
  });
});

describe('presentV1 reset', () => {
  test.each([0, 1, 2, 3, 4])('from %i leads to 1 without a session', (state) => {
    const { user, device, tape } = oldVmm({ answers: [bytes] });
    if (state !== 1) user.setState(state);
    device.reset();
    expect([user.state(), tape.state, user.pending(), user.size()]).toEqual([1, V2.RUNNING, 0, 0]);
  });

  test.each([
    ['pre-copy', 3],
    ['RESUMING', 4],
  ])('in %s of which no byte has moved takes nothing from the user', (_, state) => {
    const { user, device, warnings } = oldVmm({ precopyInfo: { initialBytes: 0, dirtyBytes: 0 } });
    user.setState(state);
    if (state === 4) user.load(new Uint8Array(0));
    else expect(user.buffer()).toHaveLength(0);
    device.reset();
    expect([outcome(() => user.setState(state)), warnings]).toEqual(['OK', []]);
  });

  test('from virtual pre-copy leads to 1', () => {
    const { user, device } = oldVmm({ flags: 1 });
    user.setState(3);
    device.reset();
    expect(user.state()).toBe(1);
  });

  /** Pre-copy has given the user a buffer; then the guest reboots, and the VMM resets its devices. */
  function rebooted(): OldVmm {
    const vmm = oldVmm({ answers: [bytes], stopAnswers: [bytes], precopyInfo: { initialBytes: 1, dirtyBytes: 0 } });
    vmm.user.setState(V1.PRE_COPY);
    vmm.user.buffer();
    vmm.device.reset();
    vmm.tape.answers.push(bytes);
    return vmm;
  }

  test.each([2, 3])('in a save of which the user has something: data, and the write of %i, fail', (state) => {
    const { user, tape, warnings } = rebooted();
    expect(warnings).toEqual(['the saving session has ended: the device is in RUNNING']);
    expect([user.state(), outcome(() => user.pending()), outcome(() => user.offset())]).toEqual([1, 'EIO', 'EIO']);
    expect(outcome(() => user.setState(state))).toBe('EIO');
    expect(tape.state).toBe(V2.RUNNING);
    user.setState(V1.RUNNING); // the migration has failed, the VM goes on; the next one is whole
    user.setState(V1.PRE_COPY);
    expect(user.buffer()).toEqual(bytes);
  });

  test('once more, before the user has been told, hides nothing', () => {
    const { user, device } = rebooted();
    device.reset();
    expect(outcome(() => user.setState(V1.STOP_COPY))).toBe('EIO');
  });

  test('after the user has been told ends it', () => {
    const { user, device } = rebooted();
    expect(outcome(() => user.offset())).toBe('EIO');
    device.reset();
    expect(outcome(() => user.setState(V1.PRE_COPY))).toBe('OK');
  });

  test('that fails is the error of the caller and forgets nothing', () => {
    const { user, device, spy } = oldVmm({ answers: [bytes], stopAnswers: [bytes] });
    user.setState(V1.PRE_COPY);
    user.offset();
    spy.options = {
      before: (call) => {
        if (call === 'reset') throw failure('EBUSY');
      },
    };
    expect(outcome(() => device.reset())).toBe('EBUSY');
    expect(user.state()).toBe(V1.PRE_COPY);
    expect(user.buffer()).toEqual(bytes);
  });
});

describe('presentV1 errors', () => {
  test('name the transition that was refused', () => {
    const { user } = oldVmm();
    user.setState(V1.STOP_COPY);
    expect(thrownBy(() => user.setState(V1.RESUMING))).toMatchObject({
      code: 'ERR_TRANSITION',
      errno: 'EINVAL',
      message: 'device_state: STOP_COPY does not lead to RESUMING',
    });
  });
});
