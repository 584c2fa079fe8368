import { describe, expect, test } from 'vitest';
import { presentV2 } from '../../src/bridge/index.ts';
import { V2 } from '../../src/v2/states.ts';
import { noise } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';
import { newVmm, readSome } from '../support/presented.ts';
import { v1Sim } from '../support/sims.ts';
import { SpyV1 } from '../support/spy-v1.ts';
import { TapeV1 } from '../support/tape-v1.ts';

const a = noise(3000);

describe('presentV2 data session', () => {
  test('answers ENODEV once it has ended, and a later one does not revive it', () => {
    const { device, begin } = newVmm(new TapeV1({ stopCopy: [a] }));
    const old = begin(V2.STOP_COPY);
    device.setState(V2.STOP);
    expect(outcome(() => old.read(new Uint8Array(1)))).toBe('ENODEV');
    const next = begin(V2.STOP_COPY);
    expect(outcome(() => old.read(new Uint8Array(1)))).toBe('ENODEV');
    expect(readSome(next, 5000)).toEqual(a);
  });

  test('is open for reading or for writing, EBADF otherwise', () => {
    expect(outcome(() => newVmm().begin(V2.STOP_COPY).write(new Uint8Array(1)))).toBe('EBADF');
    expect(outcome(() => newVmm().begin(V2.RESUMING).read(new Uint8Array(1)))).toBe('EBADF');
  });

  test('answers EBADF once it was closed, the device unmoved', () => {
    const { device, begin } = newVmm(new TapeV1({ preCopy: [a] }));
    const session = begin(V2.PRE_COPY);
    session.close();
    expect(outcome(() => session.read(new Uint8Array(1)))).toBe('EBADF');
    expect(device.getState()).toBe(V2.PRE_COPY);
    expect(readSome(device.openSession(), 5000)).toEqual(a);
  });

  test('an error of the driver is the errno of the read', () => {
    const { device } = v1Sim('vendor-v1,fault=read@2:ENOMEM,seed=3,section=8K');
    const session = presentV2(device).setState(V2.STOP_COPY);
    expect(readSome(session, 100)).toHaveLength(32);
    expect(outcome(() => session?.read(new Uint8Array(100)))).toBe('ENOMEM');
    expect(readSome(session, 5000).length).toBeGreaterThan(4096);
  });

  test('an error that leaves device_state 6: the errno, then ERROR and ENODEV', () => {
    const presented = presentV2(new SpyV1(v1Sim('vendor-v1,fault=read@1:EIO!').device));
    const session = presented.setState(V2.STOP_COPY);
    expect(outcome(() => session?.read(new Uint8Array(100)))).toBe('EIO');
    expect(presented.getState()).toBe(V2.ERROR);
    expect(outcome(() => session?.read(new Uint8Array(100)))).toBe('ENODEV');
  });
});
