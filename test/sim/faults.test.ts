import { describe, expect, test } from 'vitest';
import { isNotReady } from '../../src/error.ts';
import { V1 } from '../../src/v1/states.ts';
import { V2, type V2State } from '../../src/v2/states.ts';
import { outcome, thrownBy } from '../support/errno.ts';
import { v1Sim, v2Sim } from '../support/sims.ts';
import { v1User } from '../support/v1-user.ts';

const names = ['STOP', 'RUNNING', 'STOP_COPY', 'RESUMING', 'RUNNING_P2P', 'PRE_COPY', 'PRE_COPY_P2P'] as const;
/** From RUNNING (from STOP for RUNNING itself) these requests end with the hop into the state. */
const start: Readonly<Partial<Record<(typeof names)[number], V2State>>> = { RUNNING: V2.STOP };

describe('fault at a state of a v2 sim', () => {
  test.each(names)('%s: fails the entry with its errno and leaves the hop before', (name) => {
    const { device } = v2Sim(`qat,fault=${name}@1:EBUSY`);
    device.setState(start[name] ?? V2.RUNNING);
    const error = thrownBy(() => device.setState(V2[name]));
    expect(error).toMatchObject({ errno: 'EBUSY', message: `simulated fault: ${name} number 1 fails with EBUSY` });
    expect(device.getState()).not.toBe(V2[name]);
    expect(device.getState()).not.toBe(V2.ERROR);
    expect(outcome(() => device.setState(V2[name]))).toBe('OK');
    expect(device.getState()).toBe(V2[name]);
  });

  test.each(names)('%s!: leaves the device in ERROR, which only a reset leaves', (name) => {
    const { device } = v2Sim(`qat,fault=${name}@1:EIO!`);
    device.setState(start[name] ?? V2.RUNNING);
    expect(outcome(() => device.setState(V2[name]))).toBe('EIO');
    expect(device.getState()).toBe(V2.ERROR);
    expect(device.openSession()).toBeUndefined();
    for (const target of [...names.map((other) => V2[other]), V2.ERROR]) {
      expect(outcome(() => device.setState(target))).toBe('EINVAL');
    }
    device.reset();
    expect(device.getState()).toBe(V2.RUNNING);
    expect(outcome(() => device.setState(V2.STOP))).toBe('OK');
  });

  test('counts the entries of each state by itself', () => {
    const { device } = v2Sim('hisi,fault=STOP@2:EIO,fault=RUNNING@2:EBUSY,fault=STOP_COPY@1:ENOMEM');
    const results: string[] = [];
    for (const target of [V2.STOP, V2.RUNNING, V2.STOP, V2.STOP, V2.RUNNING, V2.RUNNING, V2.STOP_COPY]) {
      results.push(outcome(() => device.setState(target)));
    }
    expect(results).toEqual(['OK', 'OK', 'EIO', 'OK', 'EBUSY', 'OK', 'ENOMEM']);
  });

  test('does not count a request for the state that the device is in', () => {
    const { device } = v2Sim('hisi,fault=STOP@2:EIO');
    device.setState(V2.STOP);
    device.setState(V2.STOP);
    device.setState(V2.RUNNING);
    expect(outcome(() => device.setState(V2.STOP))).toBe('EIO');
  });

  test('counts hops in between', () => {
    const { device } = v2Sim('hisi,fault=STOP@1:EIO');
    expect(outcome(() => device.setState(V2.STOP_COPY))).toBe('EIO');
    expect(device.getState()).toBe(V2.RUNNING);
  });
});

describe('fault at the data of a v2 sim', () => {
  test('read@2: the second read fails once, and no byte is lost', () => {
    const { device, bar } = v2Sim('pds,size=100,seed=3,fault=read@2:EIO');
    const session = device.setState(V2.STOP_COPY);
    const into = new Uint8Array(132);
    expect(session?.read(into.subarray(0, 50))).toBe(50);
    expect(outcome(() => session?.read(into.subarray(50)))).toBe('EIO');
    expect(session?.read(into.subarray(50))).toBe(82);
    expect(into.subarray(32)).toBeBytes(bar);
    expect(device.getState()).toBe(V2.STOP_COPY);
  });

  test('write@2: the second write fails once, and none of it is taken', () => {
    const state = new Uint8Array(132);
    v2Sim('pds,size=100,seed=3').device.setState(V2.STOP_COPY)?.read(state);
    const { device, bar } = v2Sim('pds,size=100,fault=write@2:ENOSPC');
    const session = device.setState(V2.RESUMING);
    session?.write(state.subarray(0, 50));
    expect(outcome(() => session?.write(state.subarray(50)))).toBe('ENOSPC');
    expect(session?.write(state.subarray(50))).toBe(82);
    device.setState(V2.RUNNING);
    expect(bar).toBeBytes(state.subarray(32));
  });

  test.each([
    ['read@1:EIO!', V2.STOP_COPY, 'read'],
    ['write@1:EIO!', V2.RESUMING, 'write'],
  ] as const)('%s: ERROR, and the session is gone', (fault, state, use) => {
    const { device } = v2Sim(`qat,fault=${fault}`);
    const session = device.setState(state);
    expect(outcome(() => session?.[use](new Uint8Array(10)))).toBe('EIO');
    expect(device.getState()).toBe(V2.ERROR);
    expect(outcome(() => session?.[use](new Uint8Array(10)))).toBe('ENODEV');
    device.reset();
    expect(device.getState()).toBe(V2.RUNNING);
  });

  test('EAGAIN is "not yet": the caller asks again', () => {
    const { device } = v2Sim('qat,fault=read@1:EAGAIN,fault=STOP@1:EAGAIN');
    expect(isNotReady(thrownBy(() => device.setState(V2.STOP)))).toBe(true);
    device.setState(V2.STOP_COPY);
    expect(isNotReady(thrownBy(() => device.openSession()?.read(new Uint8Array(1))))).toBe(true);
    expect(device.openSession()?.read(new Uint8Array(1))).toBe(1);
  });

  test('block=2: each read and write says "not yet" twice, then happens', () => {
    const { device } = v2Sim('qat,block=2');
    const session = device.setState(V2.PRE_COPY);
    const results = Array.from({ length: 7 }, () => outcome(() => session?.read(new Uint8Array(4))));
    expect(results).toEqual(['EAGAIN', 'EAGAIN', 'OK', 'EAGAIN', 'EAGAIN', 'OK', 'EAGAIN']);
    expect(session?.precopyInfo().initialBytes).toBe(24);
  });
});

describe('fault of the v1 sim', () => {
  test.each([
    ['PRE_COPY', 1, 3],
    ['STOP_COPY', 1, 2],
    ['STOP', 1, 0],
    ['RESUMING', 1, 4],
    ['RUNNING', 0, 1],
  ])('%s: the write of device_state fails, the state before stays', (name, from, to) => {
    const user = v1User(v1Sim(`vendor-v1,fault=${name}@1:EBUSY`).device);
    user.setState(from);
    expect(outcome(() => user.setState(to))).toBe('EBUSY');
    expect(user.state()).toBe(from);
    user.setState(to);
    expect(user.state()).toBe(to);
  });

  test('STOP_COPY!: device_state is 6 until a reset', () => {
    const { device } = v1Sim('vendor-v1,fault=STOP_COPY@1:EIO!');
    const user = v1User(device);
    user.setState(V1.PRE_COPY);
    expect(outcome(() => user.setState(V1.STOP_COPY))).toBe('EIO');
    expect(user.state()).toBe(V1.ERROR);
    for (const state of [0, 1, 2, 3, 4, 6]) expect(outcome(() => user.setState(state))).toBe('EINVAL');
    device.reset();
    expect(user.state()).toBe(V1.RUNNING);
  });

  test('read@1 fails data_offset, block delays it, and the buffer is the same afterwards', () => {
    const user = v1User(v1Sim('vendor-v1,fault=read@1:EIO,block=1,seed=2').device);
    const twin = v1User(v1Sim('vendor-v1,seed=2').device);
    user.setState(V1.STOP_COPY);
    twin.setState(V1.STOP_COPY);
    const results = Array.from({ length: 3 }, () => outcome(() => user.offset()));
    expect(results).toEqual(['EAGAIN', 'EIO', 'EAGAIN']);
    expect(user.buffer()).toBeBytes(twin.buffer());
  });

  test('write@2 fails the second transaction with its errno', () => {
    const source = v1Sim('vendor-v1,size=8K,seed=6');
    const saving = v1User(source.device);
    saving.setState(V1.STOP_COPY);
    const [header, pages, end] = saving.drain() as [Uint8Array, Uint8Array, Uint8Array];
    const target = v1Sim('vendor-v1,size=8K,fault=write@2:ENOSPC');
    const user = v1User(target.device);
    user.setState(V1.RESUMING);
    const order = [header, pages, pages, end];
    expect(order.map((buffer) => outcome(() => user.load(buffer)))).toEqual(['OK', 'ENOSPC', 'OK', 'OK']);
    user.setState(V1.RUNNING);
    expect(target.bar).toBeBytes(source.bar);
  });
});
