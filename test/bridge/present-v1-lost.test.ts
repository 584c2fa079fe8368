import { describe, expect, test } from 'vitest';
import { V1 } from '../../src/v1/states.ts';
import { V2 } from '../../src/v2/states.ts';
import { join, noise } from '../support/bytes.ts';
import { outcome, thrownBy } from '../support/errno.ts';
import { oldVmm, type OldVmm } from '../support/presented.ts';

const [before, after] = [noise(100, 1), noise(60, 2)];

/** A device that is reset behind the user's back once 100 bytes of pre-copy have reached the user. */
function resetInPreCopy(): OldVmm {
  const vmm = oldVmm({ answers: [before, 0], precopyInfo: { initialBytes: 1, dirtyBytes: 0 } });
  vmm.user.setState(V1.PRE_COPY);
  expect(vmm.user.buffer()).toEqual(before);
  vmm.tape.reset();
  vmm.tape.stopAnswers.push(before, after);
  return vmm;
}

describe('presentV1 session lost behind the user', () => {
  test('device_state is 1, the operator is warned once', () => {
    const { user, warnings } = resetInPreCopy();
    expect([user.state(), user.state()]).toEqual([1, 1]);
    expect(warnings).toEqual(['the saving session has ended: the device is in RUNNING']);
  });

  test.each(['pending', 'offset', 'size'] as const)('%s fails with EIO, each time', (register) => {
    const { user } = resetInPreCopy();
    expect([outcome(() => user[register]()), outcome(() => user[register]())]).toEqual(['EIO', 'EIO']);
    expect(thrownBy(() => user[register]())).toMatchObject({
      code: 'ERR_SESSION_ENDED',
      message: "migration data: the saving session ended behind the user's back",
    });
  });

  test.each([2, 3])('the write of %i, which would begin a new stream, fails', (state) => {
    const { user, tape } = resetInPreCopy();
    expect(outcome(() => user.setState(state))).toBe('EIO');
    expect(tape.state).toBe(V2.RUNNING);
  });

  test('a VM stop in between does not hide it: 0, then 2 fails, as do the data registers', () => {
    const { user, tape } = resetInPreCopy();
    user.setState(V1.STOP); // QEMU 7.2 on a VM stop: state & ~RUNNING, of the 1 that it finds
    expect(tape.state).toBe(V2.STOP);
    expect(outcome(() => user.pending())).toBe('EIO');
    expect(outcome(() => user.setState(V1.STOP_COPY))).toBe('EIO');
    expect(tape.state).toBe(V2.STOP);
  });

  test('a VMM that ignores what pending_bytes says is told by the state write', () => {
    const { user } = resetInPreCopy();
    expect(outcome(() => user.pending())).toBe('EIO'); // save_pending of QEMU 7.2 returns nothing
    user.setState(V1.STOP);
    expect(outcome(() => user.setState(V1.STOP_COPY))).toBe('EIO');
  });

  test('the write of 1, as after a cancel, ends it: the next migration is a new one', () => {
    const { user } = resetInPreCopy();
    user.setState(V1.RUNNING);
    expect(outcome(() => user.pending())).toBe('OK');
    user.setState(V1.STOP_COPY);
    expect(join(user.drain())).toEqual(join([before, after]));
  });

  test('a refused write that began a session was the message: after it a new one may begin', () => {
    const { user } = resetInPreCopy();
    expect(outcome(() => user.setState(V1.STOP_COPY))).toBe('EIO');
    user.setState(V1.STOP);
    user.setState(V1.STOP_COPY);
    expect(join(user.drain())).toEqual(join([before, after]));
  });

  test('a reset by the user ends it', () => {
    const { user, device } = resetInPreCopy();
    expect(outcome(() => user.pending())).toBe('EIO');
    device.reset();
    expect([user.state(), user.pending()]).toEqual([1, 0]);
    expect(outcome(() => user.setState(V1.PRE_COPY))).toBe('OK');
  });

  test('in stop-and-copy: no end of stream is pretended', () => {
    const { user, tape } = oldVmm({ stopAnswers: [before, after] });
    user.setState(V1.STOP_COPY);
    user.buffer();
    tape.reset();
    expect(outcome(() => user.pending())).toBe('EIO');
    expect(user.state()).toBe(V1.RUNNING);
    user.setState(V1.STOP);
    expect(outcome(() => user.setState(V1.STOP_COPY))).toBe('EIO');
  });

  test('in RESUMING: data_size fails, and the write of 1 fails once, since the state is not the one that was loaded', () => {
    const { user, tape, warnings } = oldVmm();
    user.setState(V1.RESUMING);
    user.load(before);
    tape.reset();
    expect(thrownBy(() => user.load(after))).toMatchObject({
      errno: 'EIO',
      message: "migration data: the resuming session ended behind the user's back",
    });
    expect(outcome(() => user.setState(V1.RUNNING))).toBe('EIO');
    expect(outcome(() => user.setState(V1.RUNNING))).toBe('OK');
    expect(join(tape.taken)).toEqual(before);
    expect(warnings).toEqual(['the resuming session has ended: the device is in RUNNING']);
  });

  test.each([0, 1, 4])('in RESUMING: the first write of %i is refused, whatever the user knew', (state) => {
    const { user, tape } = oldVmm();
    user.setState(V1.RESUMING);
    tape.reset();
    expect(outcome(() => user.setState(state))).toBe('EIO');
    expect([tape.state, user.state()]).toEqual([V2.RUNNING, 1]);
    expect(outcome(() => user.setState(state))).toBe('OK');
  });

  test.each([0, 1])('nothing is lost where there was no session: state %i', (state) => {
    const { user, tape, warnings } = oldVmm({ stopAnswers: [after] });
    user.setState(state);
    tape.reset();
    user.setState(V1.STOP_COPY);
    expect(join(user.drain())).toEqual(after);
    expect(warnings).toEqual([]);
  });
});

describe('presentV1 session of another owner', () => {
  test('a device found in pre-copy is read from there, and nothing staged is dropped by the next state', () => {
    const { user, tape } = oldVmm({ answers: [before, 0], stopAnswers: [after] });
    tape.setState(V2.PRE_COPY);
    expect(user.state()).toBe(V1.PRE_COPY);
    user.offset();
    user.setState(V1.STOP_COPY);
    expect(join([user.buffer(), ...user.drain()])).toEqual(join([before, after]));
  });

  test('a device found in RESUMING takes data', () => {
    const { user, tape } = oldVmm();
    tape.setState(V2.RESUMING);
    user.load(before);
    user.setState(V1.RUNNING);
    expect(join(tape.taken)).toEqual(before);
  });
});

describe('presentV1 without a data session', () => {
  test('in a state that has one, data fails with ENODEV', () => {
    const saving = oldVmm();
    saving.tape.state = V2.STOP_COPY; // as after the former owner closed its data fd
    expect(outcome(() => saving.user.pending())).toBe('ENODEV');
    const resuming = oldVmm();
    resuming.tape.state = V2.RESUMING;
    expect(outcome(() => resuming.user.load(after))).toBe('ENODEV');
  });
});
