import { describe, expect, test } from 'vitest';
import { presentV2 } from '../../src/bridge/index.ts';
import type { V2DataSession } from '../../src/v2/device.ts';
import { V2 } from '../../src/v2/states.ts';
import { noise } from '../support/bytes.ts';
import { outcome } from '../support/errno.ts';
import { newVmm, readSome } from '../support/presented.ts';
import { v1Sim } from '../support/sims.ts';
import { SpyV1 } from '../support/spy-v1.ts';
import { TapeV1 } from '../support/tape-v1.ts';

const a = noise(3000);

type Uses = Readonly<Record<string, (session: V2DataSession) => unknown>>;

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

  const byte = new Uint8Array(1);
  const saving: Uses = {
    read: (session) => session.read(byte),
    peek: (session) => session.peek?.(1),
    precopyInfo: (session) => session.precopyInfo(),
  };
  const resuming: Uses = {
    write: (session) => session.write(byte),
    room: (session) => session.room?.(1),
  };
  const outcomes = (session: V2DataSession, uses: Uses): Record<string, string> =>
    Object.fromEntries(Object.entries(uses).map(([name, use]) => [name, outcome(() => use(session))]));

  test('is open for reading or for writing: EBADF otherwise, ENOTTY of precopy info', () => {
    const { spy, begin } = newVmm();
    const refused = { read: 'EBADF', peek: 'EBADF', precopyInfo: 'ENOTTY', write: 'EBADF', room: 'EBADF' };
    expect(refused).toMatchObject(outcomes(begin(V2.PRE_COPY), resuming));
    const session = begin(V2.RESUMING);
    spy.log.length = 0;
    expect(refused).toMatchObject(outcomes(session, saving));
    expect(spy.log).toEqual([]);
  });

  test.each([
    [V2.PRE_COPY, saving],
    [V2.RESUMING, resuming],
  ])('of state %i answers EBADF once it was closed, and asks the driver for nothing', (state, uses) => {
    const { spy, begin } = newVmm(new TapeV1({ preCopy: [a, a] }));
    const session = begin(state);
    if (state === V2.PRE_COPY) readSome(session, a.length);
    session.close();
    spy.log.length = 0;
    expect(new Set(Object.values(outcomes(session, uses)))).toEqual(new Set(['EBADF']));
    session.readAhead?.();
    expect(spy.log).toEqual([]);
  });

  test.each([
    [V2.PRE_COPY, saving, { read: 'ENODEV', peek: 'ENODEV', precopyInfo: 'EINVAL' }],
    [V2.RESUMING, resuming, { write: 'ENODEV', room: 'ENODEV' }],
  ])('of state %i that was reset behind its user answers ENODEV, whatever is asked', (state, uses, expected) => {
    const { tape, begin } = newVmm();
    const session = begin(state);
    tape.reset();
    expect(outcomes(session, uses)).toEqual(expected);
    expect(outcomes(session, uses)).toEqual(expected);
  });

  test('of 0 bytes has no place for them, and takes none once it has ended', () => {
    const { tape, spy, begin } = newVmm(new TapeV1({ preCopy: [a] }));
    const session = begin(V2.PRE_COPY);
    const resumingSession = newVmm().begin(V2.RESUMING);
    spy.log.length = 0;
    expect([session.peek?.(0), resumingSession.room?.(0)]).toEqual([undefined, undefined]);
    expect(spy.log).toEqual([]);
    tape.reset();
    const restored = begin(V2.RESUMING);
    tape.reset();
    expect(outcome(() => restored.write(new Uint8Array(0)))).toBe('ENODEV');
  });

  test.each([
    ['framed', { segmentation: 'framed' }, true],
    ['not mapped', {}, false],
  ] as const)('moves bytes by read and write alone if it is %s', (_, options, mapped) => {
    const { spy, begin } = newVmm(new TapeV1({ preCopy: [a] }), options);
    spy.options = { mapped };
    const session = begin(V2.PRE_COPY);
    spy.log.length = 0;
    expect(session.peek?.(1)).toBeUndefined();
    expect(spy.log).toEqual([]);
    const { spy: other, begin: beginThere } = newVmm(new TapeV1(), options);
    other.options = { mapped };
    const there = beginThere(V2.RESUMING);
    other.log.length = 0;
    expect(there.room?.(1)).toBeUndefined();
    expect(other.log).toEqual([]);
  });

  test('that was closed leaves the device unmoved, and another handle of it goes on', () => {
    const { device, begin } = newVmm(new TapeV1({ preCopy: [a] }));
    begin(V2.PRE_COPY).close();
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
