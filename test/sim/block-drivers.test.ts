import { describe, expect, test } from 'vitest';
import type { V2DataSession, V2Device } from '../../src/v2/device.ts';
import { V2 } from '../../src/v2/states.ts';
import { cut, join, noise } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';
import { v2Sim } from '../support/sims.ts';

const SETUP = 32;

function readAll(session: V2DataSession | undefined, block = 5000): Uint8Array {
  const pieces: Uint8Array[] = [];
  for (;;) {
    const into = new Uint8Array(block);
    const length = session?.read(into) ?? 0;
    if (length === 0) return join(pieces);
    pieces.push(into.subarray(0, length));
  }
}

function savedState(spec: string): Uint8Array {
  return readAll(v2Sim(spec).device.setState(V2.STOP_COPY));
}

function resume(spec: string): { device: V2Device; bar: Uint8Array; session: V2DataSession } {
  const { device, bar } = v2Sim(spec);
  const session = device.setState(V2.RESUMING);
  if (session === undefined) throw new Error('no session');
  return { device, bar, session };
}

describe('sim migration flags', () => {
  test.each([
    ['qat', 7],
    ['mtty', 7],
    ['pds', 3],
    ['hisi', 5],
  ])('of %s are %i', (driver, flags) => {
    expect(v2Sim(driver).device.migrationFlags).toBe(flags);
  });

  test('pds has no PRE_COPY, hisi no P2P', () => {
    for (const state of [V2.PRE_COPY, V2.PRE_COPY_P2P])
      expect(outcome(() => v2Sim('pds').device.setState(state))).toBe('EINVAL');
    for (const state of [V2.RUNNING_P2P, V2.PRE_COPY_P2P])
      expect(outcome(() => v2Sim('hisi').device.setState(state))).toBe('EINVAL');
    expect(outcome(() => v2Sim('pds').device.setState(V2.RUNNING_P2P))).toBe('OK');
    expect(outcome(() => v2Sim('hisi').device.setState(V2.PRE_COPY))).toBe('OK');
  });
});

describe.each(['qat', 'hisi'])('sim %s in PRE_COPY', (driver) => {
  test('gives its setup, then 0 as the temporary end, and in STOP_COPY the rest of the same stream', () => {
    const { device, bar } = v2Sim(`${driver},seed=4`);
    const session = device.setState(V2.PRE_COPY);
    expect(session?.precopyInfo()).toEqual({ initialBytes: SETUP, dirtyBytes: 0 });
    const setup = readAll(session);
    expect(setup).toHaveLength(SETUP);
    expect(session?.precopyInfo()).toEqual({ initialBytes: 0, dirtyBytes: 0 });
    expect(session?.read(new Uint8Array(8))).toBe(0);
    bar.set(noise(bar.length, 9));
    expect(device.setState(V2.STOP_COPY)).toBeUndefined();
    const rest = readAll(session);
    expect(rest).toBeBytes(bar);
    expect(device.stopCopyLength()).toBe(setup.length + rest.length);
    expect(outcome(() => session?.precopyInfo())).toBe('EINVAL');
  });
});

describe.each(['qat', 'pds', 'hisi'])('sim %s', (driver) => {
  test('begins every session from byte 0', () => {
    const { device } = v2Sim(`${driver},seed=4`);
    const old = device.setState(V2.STOP_COPY);
    old?.read(new Uint8Array(1000));
    device.setState(V2.STOP);
    expect(outcome(() => old?.read(new Uint8Array(1)))).toBe('ENODEV');
    expect(readAll(device.setState(V2.STOP_COPY))).toBeBytes(savedState(`${driver},seed=4`));
  });

  test('loads what it saved, however it is cut', () => {
    for (const sizes of [[1, 2, 3], [31, 1], [32], [33], [65_536 + SETUP]]) {
      const state = savedState(`${driver},seed=4`);
      const { device, bar, session } = resume(driver);
      for (const piece of cut(state, sizes)) expect(session.write(piece)).toBe(piece.length);
      device.setState(V2.RUNNING);
      expect(bar).toBeBytes(v2Sim(`${driver},seed=4`).bar);
      expect(outcome(() => session.write(new Uint8Array(1)))).toBe('ENODEV');
    }
  });

  test.each([
    ['another compatibility number', `${driver},compat=2`],
    ['a higher version', `${driver},version=2`],
    ['another size', `${driver},size=60K`],
    ['another driver', driver === 'qat' ? 'pds' : 'qat'],
  ])('refuses the state of %s in the write that completes the setup, not in the transition', (_, source) => {
    const state = savedState(source);
    const { device, session } = resume(driver);
    expect(session.write(state.subarray(0, SETUP - 1))).toBe(SETUP - 1);
    expect(outcome(() => session.write(state.subarray(SETUP - 1, SETUP + 10)))).toBe('EINVAL');
    expect(outcome(() => session.write(state.subarray(SETUP, SETUP + 1)))).toBe('EINVAL');
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('EINVAL');
    expect(device.getState()).toBe(V2.RESUMING);
  });

  test('writes nothing of a refused state into its memory', () => {
    const { bar, session } = resume(`${driver},seed=8`);
    expect(outcome(() => session.write(savedState(`${driver},compat=2,seed=4`)))).toBe('EINVAL');
    expect(bar).toBeBytes(v2Sim(`${driver},seed=8`).bar);
  });

  test('takes a state that fits once a refused one was given up', () => {
    const { device, bar, session } = resume(driver);
    expect(outcome(() => session.write(savedState(`${driver},compat=2`)))).toBe('EINVAL');
    device.reset();
    device.setState(V2.RESUMING)?.write(savedState(`${driver},seed=4`));
    device.setState(V2.RUNNING);
    expect(bar).toBeBytes(v2Sim(`${driver},seed=4`).bar);
  });

  test('a lower version is taken', () => {
    const { device, session } = resume(`${driver},version=3`);
    session.write(savedState(`${driver},version=2`));
    expect(outcome(() => device.setState(V2.RUNNING))).toBe('OK');
  });

  test('answers ENOMEM to a byte too many, in one write or in the last', () => {
    const state = savedState(driver);
    const one = resume(driver);
    expect(outcome(() => one.session.write(join([state, new Uint8Array(1)])))).toBe('ENOMEM');
    expect(one.session.write(state)).toBe(state.length);
    expect(outcome(() => one.session.write(new Uint8Array(1)))).toBe('ENOMEM');
    expect(outcome(() => one.device.setState(V2.RUNNING))).toBe('OK');
  });

  test('does not leave RESUMING with a truncated state, and goes on with the rest', () => {
    const state = savedState(`${driver},seed=4`);
    const { device, bar, session } = resume(driver);
    session.write(state.subarray(0, state.length - 1));
    for (const target of [V2.STOP, V2.RUNNING]) {
      expect(outcome(() => device.setState(target))).toBe('EINVAL');
      expect(device.getState()).toBe(V2.RESUMING);
    }
    session.write(state.subarray(state.length - 1));
    device.setState(V2.RUNNING);
    expect(bar).toBeBytes(v2Sim(`${driver},seed=4`).bar);
  });

  test.each([1, 7, 4096])('moves at most %i bytes at a time where told to be short', (short) => {
    const spec = `${driver},size=8K,seed=4`;
    const source = v2Sim(`${spec},short=${short}`);
    const session = source.device.setState(V2.STOP_COPY);
    expect(session?.read(new Uint8Array(9000))).toBe(Math.min(short, 8192 + SETUP));
    source.device.setState(V2.STOP);
    const state = readAll(source.device.setState(V2.STOP_COPY));
    expect(state).toBeBytes(savedState(spec));
    const target = resume(`${driver},size=8K,short=${short}`);
    for (let at = 0; at < state.length;) {
      const taken = target.session.write(state.subarray(at));
      expect(taken).toBe(Math.min(short, state.length - at));
      at += taken;
    }
    target.device.setState(V2.RUNNING);
    expect(target.bar).toBeBytes(source.bar);
  });
});
