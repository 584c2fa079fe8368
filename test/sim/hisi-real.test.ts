import { describe, expect, test } from 'vitest';
import { HisiReal } from '../../src/sim/hisi-real.ts';
import { V2 } from '../../src/v2/states.ts';
import { cut, noise } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';
import { begun, drained, inSession, stateOf, v2Sim } from '../support/sims.ts';

/* drivers/vfio/pci/hisilicon/hisi_acc_vfio_pci.c and .h, Linux 6.12. */

const STATE = 176;
const MATCH = 40;

describe('sim hisi,real=1 saving', () => {
  test('gives 176 bytes, the match data and the memory', () => {
    const { device, bar, session } = inSession('hisi,real=1,seed=3', V2.STOP_COPY);
    const state = drained(session, 50);
    expect(state).toHaveLength(STATE);
    expect(new DataView(state.buffer).getBigUint64(0, true)).toBe(0xcdcdcdcdfeedaaccn);
    expect(state.subarray(MATCH)).toBeBytes(bar);
    expect(device.stopCopyLength()).toBe(STATE);
  });

  test('gives 40 bytes in PRE_COPY, then 0, and precopy info in PRE_COPY only', () => {
    const { device, bar, session } = inSession('hisi,real=1,seed=3', V2.PRE_COPY);
    expect(session.precopyInfo()).toEqual({ initialBytes: MATCH, dirtyBytes: 0 });
    const match = drained(session, 30);
    expect(match).toHaveLength(MATCH);
    bar.set(noise(bar.length, 5));
    device.setState(V2.STOP_COPY);
    expect(drained(session)).toBeBytes(bar);
    expect(outcome(() => session.precopyInfo())).toBe('EINVAL');
  });

  test("ends with the match data if the guest's driver is not up, and MIG_DATA_SIZE is 176 all the same", () => {
    expect(stateOf('hisi,real=1,up=0,seed=3')).toHaveLength(MATCH);
    const { device, session } = inSession('hisi,real=1,up=0', V2.PRE_COPY);
    expect(drained(session)).toHaveLength(MATCH);
    device.setState(V2.STOP_COPY);
    expect(drained(session)).toHaveLength(0);
    expect(device.stopCopyLength()).toBe(STATE);
  });

  test('is stopped in PRE_COPY after an entry into STOP_COPY that failed, and does not run in RUNNING', () => {
    const { device, session } = inSession('hisi,real=1,fault=STOP_COPY@1:EBUSY', V2.PRE_COPY);
    if (!(device instanceof HisiReal)) throw new Error('unreachable');
    expect(device.isStopped).toBe(false);
    expect(outcome(() => device.setState(V2.STOP_COPY))).toBe('EBUSY');
    expect([device.getState(), device.isStopped]).toEqual([V2.PRE_COPY, true]);
    expect(drained(session)).toHaveLength(MATCH);
    device.setState(V2.RUNNING);
    expect(device.isStopped).toBe(true);
    device.setState(V2.STOP);
    device.setState(V2.RUNNING);
    expect(device.isStopped).toBe(false);
  });

  test('is reset without its migration state', () => {
    const { device, session } = inSession('hisi,real=1', V2.STOP_COPY);
    device.reset();
    expect(device.getState()).toBe(V2.STOP_COPY);
    expect(drained(session)).toHaveLength(STATE);
  });
});

describe('sim hisi,real=1 resuming', () => {
  const state = stateOf('hisi,real=1,seed=3');

  test('loads what it saved, however it is cut', () => {
    for (const sizes of [[1], [39, 1], [40], [41], [STATE]]) {
      const { device, bar, session } = inSession('hisi,real=1', V2.RESUMING);
      for (const piece of cut(state, sizes)) expect(session.write(piece)).toBe(piece.length);
      device.setState(V2.RUNNING);
      expect(bar).toBeBytes(v2Sim('hisi,real=1,seed=3').bar);
    }
  });

  test.each([
    ['compatibility number', 'hisi,real=1,seed=3,compat=2'],
    ['version', 'hisi,real=1,seed=3,version=2'],
  ])('refuses another %s with the 40th byte and from then on, takes it all the same, and loads it', (_, source) => {
    const other = stateOf(source);
    const { device, bar, session } = inSession('hisi,real=1', V2.RESUMING);
    expect(session.write(other.subarray(0, MATCH - 1))).toBe(MATCH - 1);
    for (const piece of cut(other.subarray(MATCH - 1), [1, 36, 100])) {
      expect(outcome(() => session.write(piece))).toBe('EFAULT');
    }
    expect(outcome(() => session.write(new Uint8Array(1)))).toBe('ENOMEM');
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('OK');
    expect(bar).toBeBytes(v2Sim('hisi,real=1,seed=3').bar);
  });

  test('checks the match data once as long as it is open', () => {
    const { device, session } = inSession('hisi,real=1', V2.RESUMING);
    session.write(state);
    device.setState(V2.RUNNING);
    device.reset();
    expect(begun(device, V2.RESUMING).write(stateOf('hisi,real=1,compat=2'))).toBe(STATE);
  });

  test('loads nothing from 40 bytes, and the exit refuses any other length', () => {
    for (const [length, answer] of [
      [0, 'EINVAL'],
      [39, 'EINVAL'],
      [40, 'OK'],
      [41, 'EINVAL'],
      [175, 'EINVAL'],
      [176, 'OK'],
    ] as const) {
      const { device, bar, session } = inSession('hisi,real=1,seed=8', V2.RESUMING);
      session.write(state.subarray(0, length));
      expect(
        outcome(() => device.setState(V2.RUNNING)),
        `${length}`,
      ).toBe(answer);
      expect(bar).toBeBytes(v2Sim(`hisi,real=1,seed=${length === STATE ? 3 : 8}`).bar);
    }
  });

  test('says ENOMEM to too long a write before ENODEV', () => {
    const { device, session } = inSession('hisi,real=1', V2.RESUMING);
    session.write(state);
    device.setState(V2.RUNNING);
    expect(outcome(() => session.write(state))).toBe('ENODEV');
    expect(outcome(() => session.write(new Uint8Array(STATE + 1)))).toBe('ENOMEM');
  });
});
