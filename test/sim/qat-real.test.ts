import { describe, expect, test } from 'vitest';
import { V2 } from '../../src/v2/states.ts';
import { cut, join, noise } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';
import { begun, drained, inSession, stateOf, v2Sim } from '../support/sims.ts';

/*
 * drivers/vfio/pci/qat/main.c, drivers/crypto/intel/qat/qat_common/adf_gen4_vf_mig.c and adf_mstate_mgr.c, Linux 6.12.
 */

const STATE = 4096;
/** Preamble, CONFIG, and in it gencap (4 bytes), svcmap (2) and extdc (4), each with 16 bytes in front. */
const SETUP = 16 + 16 + 3 * 16 + 4 + 2 + 4;
/** Where the value of gencap lies. */
const GENCAP = 16 + 16 + 16;

const text = (from: Uint8Array, at: number, length = 8): string =>
  new TextDecoder().decode(from.subarray(at, at + length)).replace(/\0+$/, '');
const u32 = (from: Uint8Array, at: number): number => new DataView(from.buffer, from.byteOffset).getUint32(at, true);
const u16 = (from: Uint8Array, at: number): number => new DataView(from.buffer, from.byteOffset).getUint16(at, true);

const changed = (state: Uint8Array, at: number, value: number): Uint8Array => {
  const copy = state.slice();
  copy[at] = value;
  return copy;
};

describe('sim qat,real=1 saving', () => {
  test('gives 4096 bytes in STOP_COPY whatever the memory, MIG_DATA_SIZE among them', () => {
    for (const size of [1, 100, 2048, 3942]) {
      const { device } = v2Sim(`qat,real=1,size=${size}`);
      expect(device.stopCopyLength()).toBe(STATE);
      expect(drained(begun(device, V2.STOP_COPY))).toHaveLength(STATE);
    }
  });

  test('has two parts, each a preamble and sections', () => {
    const state = stateOf('qat,real=1,size=100,seed=3,compat=5');
    for (const at of [0, SETUP]) {
      expect([u32(state, at), u32(state, at + 4), u16(state, at + 8)]).toEqual([0xadf5caea, 1, 16]);
    }
    expect([u16(state, 10), u32(state, 12)]).toEqual([1, SETUP - 16]);
    expect([text(state, 16), u32(state, 24), u32(state, 28)]).toEqual(['CONFIG', SETUP - 32, 3]);
    expect([text(state, 32), u32(state, 40), u32(state, GENCAP)]).toEqual(['gencap', 4, 5]);
    expect([text(state, 52), u32(state, 60)]).toEqual(['svcmap', 2]);
    expect([text(state, 70), u32(state, 78)]).toEqual(['extdc', 4]);
    expect([u16(state, SETUP + 10), u32(state, SETUP + 12)]).toEqual([3, 3 * 16 + 100]);
    expect([16, 32, 48].map((at) => text(state, SETUP + at))).toEqual(['GENER', 'MISCBAR', 'ETRBAR']);
    expect(state.subarray(SETUP + 64, SETUP + 164)).toBeBytes(v2Sim('qat,real=1,size=100,seed=3').bar);
  });

  test('gives the first part in PRE_COPY, then 0; STOP_COPY goes on from there', () => {
    const { device, bar, session } = inSession('qat,real=1,seed=3', V2.PRE_COPY);
    expect(session.precopyInfo()).toEqual({ initialBytes: SETUP, dirtyBytes: 0 });
    const setup = drained(session, 33);
    expect(setup).toHaveLength(SETUP);
    expect(session.precopyInfo()).toEqual({ initialBytes: 0, dirtyBytes: 0 });
    bar.set(noise(bar.length, 4));
    device.setState(V2.STOP_COPY);
    const rest = drained(session);
    expect(setup.length + rest.length).toBe(STATE);
    expect(rest.subarray(64, 64 + bar.length)).toBeBytes(bar);
    expect(outcome(() => session.precopyInfo())).toBe('EINVAL');
  });

  test('hands out what lies in the buffer behind the state: of an earlier load too', () => {
    const { device, session } = inSession('qat,real=1,size=10', V2.RESUMING);
    expect(outcome(() => session.write(noise(STATE)))).toBe('EINVAL'); // and is taken
    device.reset();
    const state = drained(begun(device, V2.STOP_COPY));
    const end = SETUP + 64 + 10;
    expect(state.subarray(end)).toBeBytes(noise(STATE).subarray(end));
  });

  test('does not make the first part again if it was made since the last reset, even if a load has overwritten it', () => {
    const sim = v2Sim('qat,real=1,compat=7');
    drained(begun(sim.device, V2.STOP_COPY));
    sim.device.setState(V2.STOP);
    begun(sim.device, V2.RESUMING).write(stateOf('qat,real=1,compat=1'));
    sim.device.setState(V2.STOP);
    expect(u32(drained(begun(sim.device, V2.STOP_COPY)), GENCAP)).toBe(1);
    sim.device.reset();
    expect(u32(drained(begun(sim.device, V2.STOP_COPY)), GENCAP)).toBe(7);
  });
});

describe('sim qat,real=1 resuming', () => {
  const state = stateOf('qat,real=1,seed=3');

  test('loads what it saved, however it is cut, and nothing is needed behind the state', () => {
    for (const sizes of [[1], [7, 83], [SETUP], [4095, 1], [STATE]]) {
      const { device, bar, session } = inSession('qat,real=1', V2.RESUMING);
      for (const piece of cut(state, sizes)) expect(session.write(piece)).toBe(piece.length);
      device.setState(V2.RUNNING);
      expect(bar).toBeBytes(v2Sim('qat,real=1,seed=3').bar);
    }
  });

  test('takes the state of a device with fewer capabilities, refuses one with others', () => {
    const answer = (mine: number, theirs: number): string =>
      outcome(() =>
        inSession(`qat,real=1,compat=${mine}`, V2.RESUMING).session.write(stateOf(`qat,real=1,compat=${theirs}`)),
      );
    expect([answer(7, 5), answer(7, 7), answer(7, 0), answer(5, 7), answer(5, 2)]).toEqual([
      'OK',
      'OK',
      'OK',
      'EINVAL',
      'EINVAL',
    ]);
  });

  test('refuses a configuration once, in the write that completes the first part; then all goes, and the exit loads', () => {
    const other = stateOf('qat,real=1,seed=3,compat=2');
    const { device, bar, session } = inSession('qat,real=1', V2.RESUMING);
    expect(session.write(other.subarray(0, SETUP - 1))).toBe(SETUP - 1);
    expect(outcome(() => session.write(other.subarray(SETUP - 1, SETUP + 10)))).toBe('EINVAL');
    expect(session.write(other.subarray(SETUP + 10))).toBe(STATE - SETUP - 10); // what was refused has been taken
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('OK');
    expect(bar).toBeBytes(v2Sim('qat,real=1,seed=3').bar);
  });

  test.each([
    ['magic', changed(state, 0, 0)],
    ['version', changed(state, 4, 2)],
    ['a section beyond the part', changed(state, 25, 0xff)],
    ['more than 4096 bytes in the first part', changed(state, 13, 0xff)],
  ])('refuses a bad preamble in every write, whose bytes are taken, and at the exit: %s', (_, bad) => {
    const { device, session } = inSession('qat,real=1', V2.RESUMING);
    const answers = cut(bad, [100, 1000, 1000, 1000]).map((piece) => outcome(() => session.write(piece)));
    expect([answers.length, new Set(answers)]).toEqual([6, new Set(['EINVAL'])]);
    expect(outcome(() => session.write(new Uint8Array(1)))).toBe('ENOMEM');
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('EINVAL');
    expect(device.getState()).toBe(V2.RESUMING);
  });

  test('asks for 16 bytes before it looks at a preamble; a write of nothing looks too', () => {
    const { session } = inSession('qat,real=1', V2.RESUMING);
    const bad = changed(state, 0, 0);
    expect(session.write(bad.subarray(0, 15))).toBe(15);
    expect(session.write(new Uint8Array(0))).toBe(0);
    expect(outcome(() => session.write(bad.subarray(15, SETUP)))).toBe('EINVAL');
    expect(outcome(() => session.write(new Uint8Array(0)))).toBe('EINVAL');
  });

  test('does not count what was written: a state that ends early is judged by what lies in the buffer', () => {
    const fresh = inSession('qat,real=1', V2.RESUMING);
    fresh.session.write(state.subarray(0, SETUP));
    expect(outcome(() => fresh.device.setState(V2.STOP))).toBe('EINVAL'); // zeros are no preamble
    const half = inSession('qat,real=1', V2.RESUMING);
    half.session.write(state.subarray(0, 1000));
    expect(outcome(() => half.device.setState(V2.RUNNING))).toBe('OK'); // half of the memory is lost
    const stale = v2Sim('qat,real=1,seed=9');
    drained(begun(stale.device, V2.STOP_COPY));
    stale.device.setState(V2.STOP);
    begun(stale.device, V2.RESUMING);
    expect(outcome(() => stale.device.setState(V2.RUNNING))).toBe('OK'); // nothing was written at all
    expect(stale.bar).toBeBytes(v2Sim('qat,real=1,seed=9').bar);
  });

  test('checks no second state unless a reset comes between', () => {
    const other = stateOf('qat,real=1,seed=4,compat=2');
    const { device, bar, session } = inSession('qat,real=1', V2.RESUMING);
    session.write(state);
    device.setState(V2.RUNNING);
    expect(begun(device, V2.RESUMING).write(other)).toBe(STATE);
    device.setState(V2.RUNNING);
    expect(bar).toBeBytes(v2Sim('qat,real=1,seed=4').bar);
    device.reset();
    expect(outcome(() => begun(device, V2.RESUMING).write(other))).toBe('EINVAL');
  });

  test('says ENOMEM to too long a write before ENODEV', () => {
    const { device, session } = inSession('qat,real=1', V2.RESUMING);
    expect(outcome(() => session.write(join([state, new Uint8Array(1)])))).toBe('ENOMEM');
    expect(session.write(state)).toBe(STATE);
    device.reset();
    expect(outcome(() => session.write(state))).toBe('ENODEV');
    expect(outcome(() => session.write(new Uint8Array(STATE + 1)))).toBe('ENOMEM');
  });

  test('goes on from the memory that another object has left', () => {
    const first = inSession('qat,real=1', V2.RESUMING);
    first.session.write(state.subarray(0, 1000));
    const second = v2Sim('qat,real=1', first.memory);
    second.device.openSession()?.write(state.subarray(1000));
    second.device.setState(V2.RUNNING);
    expect(first.bar).toBeBytes(v2Sim('qat,real=1,seed=3').bar);
  });
});
