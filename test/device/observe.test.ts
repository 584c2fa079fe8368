import { describe, expect, it } from 'vitest';
import { presentV2 } from '../../src/bridge/index.ts';
import { isChange, stateIn, type DeviceEvent } from '../../src/device/device-event.ts';
import { microseconds, observe } from '../../src/device/observe.ts';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import type { V1Device } from '../../src/v1/device.ts';
import { V1 } from '../../src/v1/states.ts';
import type { V2DataSession, V2Device } from '../../src/v2/device.ts';
import { V2 } from '../../src/v2/states.ts';
import { noise } from '../support/bytes.ts';
import { failure, notYet, outcome } from '../support/errno.ts';
import { v1Sim, v2Sim } from '../support/sims.ts';
import { TapeV2 } from '../support/tape-v2.ts';
import { v1User } from '../support/v1-user.ts';

/** What a sink is told, without what all events of a device have in common. */
function seenOf(events: readonly DeviceEvent[]): object[] {
  return events.map(({ time: _time, protocol: _protocol, ...rest }) => rest);
}

function watchedV1(device: V1Device): { device: V1Device; seen: () => object[]; events: DeviceEvent[] } {
  const events: DeviceEvent[] = [];
  const observed = observe({ protocol: 'v1', device }, (event) => events.push(event));
  return { device: observed.device, seen: () => seenOf(events.splice(0)), events };
}

function watchedV2(device: V2Device): { device: V2Device; seen: () => object[]; events: DeviceEvent[] } {
  const events: DeviceEvent[] = [];
  const observed = observe({ protocol: 'v2', device }, (event) => events.push(event));
  return { device: observed.device, seen: () => seenOf(events.splice(0)), events };
}

/** A v1 device whose every call fails, until it is told otherwise. */
class Stubborn implements V1Device {
  readonly regionSize = 8192;
  readonly dataSection = { offset: 4096, size: 4096 };
  readonly mapped = undefined;
  error: Error | undefined;
  value = 0n;

  read(_offset: number, into: Uint8Array): void {
    if (this.error !== undefined) throw this.error;
    if (into.length === 8) new DataView(into.buffer).setBigUint64(0, this.value, true);
  }

  write(): void {
    if (this.error !== undefined) throw this.error;
  }

  reset(): void {
    if (this.error !== undefined) throw this.error;
  }
}

describe('observe() of a v1 device', () => {
  it('tells of each access to a register, by name and value', () => {
    const { device, seen } = watchedV1(v1Sim('vendor-v1,size=8K,section=8K').device);
    const user = v1User(device);
    user.setState(V1.PRE_COPY);
    user.buffer();
    const register = { call: 'register' };
    expect(seen()).toEqual([
      { ...register, access: 'write', register: 'device_state', value: 3 },
      { ...register, access: 'read', register: 'data_offset', value: DATA_OFFSET },
      { ...register, access: 'read', register: 'data_size', value: 32 },
      { call: 'data', direction: 'out', offset: DATA_OFFSET, bytes: 32 },
    ]);
  });

  it('tells of data that is read and written, of what is no register, and of a reset', () => {
    const { device, seen } = watchedV1(new Stubborn());
    device.read(4096, new Uint8Array(100));
    device.write(4200, new Uint8Array(7));
    device.read(9, new Uint8Array(4));
    device.write(0, new Uint8Array(8));
    device.reset();
    expect(seen()).toEqual([
      { call: 'data', direction: 'out', offset: 4096, bytes: 100 },
      { call: 'data', direction: 'in', offset: 4200, bytes: 7 },
      { call: 'other', access: 'read', offset: 9, bytes: 4 },
      { call: 'other', access: 'write', offset: 0, bytes: 8 },
      { call: 'reset' },
    ]);
  });

  it('tells of failures with their errno, and the caller gets the same error', () => {
    const stubborn = new Stubborn();
    const { device, seen } = watchedV1(stubborn);
    stubborn.error = notYet();
    expect(() => device.read(8, new Uint8Array(8))).toThrow(stubborn.error);
    stubborn.error = failure('EBUSY');
    expect(() => device.write(0, Uint8Array.of(2, 0, 0, 0))).toThrow(stubborn.error);
    expect(() => device.read(5000, new Uint8Array(3))).toThrow(stubborn.error);
    stubborn.error = new RangeError('a bug');
    expect(() => device.reset()).toThrow(stubborn.error);
    expect(seen()).toEqual([
      { call: 'register', access: 'read', register: 'pending_bytes', errno: 'EAGAIN' },
      { call: 'register', access: 'write', register: 'device_state', value: 2, errno: 'EBUSY' },
      { call: 'data', direction: 'out', offset: 5000, bytes: 3, errno: 'EBUSY' },
      { call: 'reset', errno: 'EIO' },
    ]);
  });

  it.each([
    [0n, 0],
    [0x1_ffff_ffffn, 2 ** 33 - 1],
    [2n ** 53n - 1n, Number.MAX_SAFE_INTEGER],
    [2n ** 64n - 1n, Number.MAX_SAFE_INTEGER],
  ])('tells of %i as %i', (value, told) => {
    const stubborn = new Stubborn();
    const { device, seen } = watchedV1(stubborn);
    stubborn.value = value;
    device.read(8, new Uint8Array(8));
    expect(seen()).toEqual([{ call: 'register', access: 'read', register: 'pending_bytes', value: told }]);
  });

  it('is a device of the same shape', () => {
    const { device } = v1Sim('vendor-v1,size=8K,section=8K');
    const { regionSize, dataSection, mapped } = watchedV1(device).device;
    expect({ regionSize, dataSection }).toEqual({ regionSize: device.regionSize, dataSection: device.dataSection });
    expect(mapped).toBe(device.mapped);
  });
});

describe('observe() of a v2 device', () => {
  it('tells of each request, and of what moves through its sessions', () => {
    const tape = new TapeV2({ answers: [noise(10)], precopyInfo: { initialBytes: 3, dirtyBytes: 4 } });
    const { device, seen } = watchedV2(tape);
    tape.length = 99;
    device.getState();
    device.stopCopyLength();
    const session = device.setState(V2.PRE_COPY);
    session?.precopyInfo();
    session?.read(new Uint8Array(100));
    device.setState(V2.STOP_COPY);
    device.openSession()?.read(new Uint8Array(100));
    device.reset();
    device.setState(V2.RESUMING)?.write(noise(5));
    expect(seen()).toEqual([
      { call: 'get-state', state: 'RUNNING' },
      { call: 'data-size', bytes: 99 },
      { call: 'set-state', state: 'PRE_COPY', session: true },
      { call: 'precopy-info', initialBytes: 3, dirtyBytes: 4 },
      { call: 'data', direction: 'out', bytes: 10 },
      { call: 'set-state', state: 'STOP_COPY', session: false },
      { call: 'data', direction: 'out', bytes: 0 },
      { call: 'reset' },
      { call: 'set-state', state: 'RESUMING', session: true },
      { call: 'data', direction: 'in', bytes: 5 },
    ]);
  });

  it('tells of failures with their errno', () => {
    const tape = new TapeV2({ answers: [notYet()] });
    tape.failingHops.push({ hop: V2.RUNNING_P2P, error: failure('EBUSY') });
    tape.writeAnswers.push(failure('ENOSPC'));
    const { device, seen } = watchedV2(tape);
    expect(outcome(() => device.setState(V2.STOP))).toBe('EBUSY');
    expect(outcome(() => device.stopCopyLength())).toBe('ENOTTY');
    const saving = device.setState(V2.PRE_COPY);
    expect(outcome(() => saving?.read(new Uint8Array(1)))).toBe('EAGAIN');
    const resuming = device.setState(V2.RESUMING);
    expect(outcome(() => resuming?.write(new Uint8Array(1)))).toBe('ENOSPC');
    expect(outcome(() => resuming?.precopyInfo())).toBe('EINVAL');
    expect(seen()).toEqual([
      { call: 'set-state', state: 'STOP', errno: 'EBUSY' },
      { call: 'data-size', errno: 'ENOTTY' },
      { call: 'set-state', state: 'PRE_COPY', session: true },
      { call: 'data', direction: 'out', errno: 'EAGAIN' },
      { call: 'set-state', state: 'RESUMING', session: true },
      { call: 'data', direction: 'in', errno: 'ENOSPC' },
      { call: 'precopy-info', errno: 'EINVAL' },
    ]);
  });

  it('gives the same session where the device does, and one without zero-copy methods where the device has none', () => {
    const { device: qat } = v2Sim('qat,size=8K');
    let current: V2DataSession | undefined;
    const keeping: V2Device = {
      migrationFlags: qat.migrationFlags,
      getState: () => qat.getState(),
      setState: (state) => (current = qat.setState(state)),
      openSession: () => current,
      stopCopyLength: () => qat.stopCopyLength(),
      reset: () => qat.reset(),
    };
    const { device } = watchedV2(keeping);
    const session = device.setState(V2.PRE_COPY);
    expect(device.openSession()).toBe(session);
    const { peek, room, readAhead, beginRead } = session ?? {};
    expect([peek, room, readAhead, beginRead]).toEqual([undefined, undefined, undefined, undefined]);
    device.setState(V2.RUNNING);
    expect(device.setState(V2.STOP_COPY)).not.toBe(session);
  });

  it('hands on where the next read will be, which is told once it is made', () => {
    const { device: qat } = v2Sim('qat,size=8K');
    const begun: (Uint8Array | undefined)[] = [];
    const giving: V2Device = {
      migrationFlags: qat.migrationFlags,
      getState: () => qat.getState(),
      setState(state) {
        const session = qat.setState(state);
        if (session === undefined) return undefined;
        return {
          read: (into) => session.read(into),
          write: (from) => session.write(from),
          precopyInfo: () => session.precopyInfo(),
          close: () => session.close(),
          beginRead: (into) => void begun.push(into),
        };
      },
      openSession: () => qat.openSession(),
      stopCopyLength: () => qat.stopCopyLength(),
      reset: () => qat.reset(),
    };
    const { device, seen } = watchedV2(giving);
    const session = device.setState(V2.STOP_COPY);
    seen();
    const into = new Uint8Array(100);
    session?.beginRead?.(into);
    session?.beginRead?.();
    expect(begun).toEqual([into, undefined]);
    expect(begun[0]).toBe(into);
    expect(seen()).toEqual([]);
    session?.read(into);
    expect(seen()).toEqual([{ call: 'data', direction: 'out', bytes: 100 }]);
  });

  it('tells of bytes that are moved without a copy once, when they are', () => {
    const source = watchedV2(presentV2(v1Sim('vendor-v1,size=8K,section=8K,seed=3').device));
    const target = watchedV2(presentV2(v1Sim('vendor-v1,size=8K,section=8K').device));
    const saving = source.device.setState(V2.STOP_COPY);
    const resuming = target.device.setState(V2.RESUMING);
    source.seen();
    target.seen();
    let moved = 0;
    for (;;) {
      const bytes = saving?.peek?.(1000);
      expect(saving?.peek?.(1000)).toEqual(bytes); // a second look is none
      if (bytes === undefined || bytes.length === 0) break;
      const room = resuming?.room?.(bytes.length);
      const part = room?.length ?? 0;
      room?.set(bytes.subarray(0, part));
      resuming?.fill?.(part);
      saving?.consume?.(part);
      saving?.readAhead?.();
      moved += part;
      expect(source.seen()).toEqual([{ call: 'data', direction: 'out', bytes: part }]);
      expect(target.seen()).toEqual([{ call: 'data', direction: 'in', bytes: part }]);
    }
    expect(moved).toBeGreaterThan(8192);
    const end = { call: 'data', direction: 'out', bytes: 0 };
    expect(source.seen()).toEqual([end, end]);
    source.device.reset();
    source.seen();
    expect(outcome(() => saving?.peek?.(1))).toBe('ENODEV');
    expect(source.seen()).toEqual([{ call: 'data', direction: 'out', errno: 'ENODEV' }]);
  });
});

describe('events', () => {
  it('have the time of a monotonic clock in microseconds, of the system or as it is given', () => {
    const { device, events } = watchedV2(new TapeV2());
    const before = microseconds();
    device.getState();
    device.getState();
    const times = [before, ...events.map(({ time }) => time), microseconds()];
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    expect(times.every(Number.isSafeInteger)).toBe(true);

    const told: number[] = [];
    const sink = ({ time }: DeviceEvent): number => told.push(time);
    observe({ protocol: 'v2', device: new TapeV2() }, sink, () => 7).device.getState();
    expect(told).toEqual([7]);
  });

  it('say in which state they have shown the device, and which were to change it', () => {
    const v1 = watchedV1(v1Sim('vendor-v1').device);
    const user = v1User(v1.device);
    user.setState(V1.PRE_COPY);
    outcome(() => user.setState(V1.RESUMING));
    user.state();
    user.pending();
    v1.device.reset();
    const v2 = watchedV2(v2Sim('qat').device);
    v2.device.getState();
    v2.device.setState(V2.STOP_COPY);
    outcome(() => v2.device.setState(V2.PRE_COPY));
    v2.device.stopCopyLength();
    v2.device.reset();
    const said = [...v1.events, ...v2.events]
      .map((event) => [stateIn(event), isChange(event)] as const)
      .filter(([state, change]) => state !== undefined || change);
    expect(said).toEqual([
      ['PRE_COPY', true],
      [undefined, true],
      ['PRE_COPY', false],
      ['RUNNING', true],
      ['RUNNING', false],
      ['STOP_COPY', true],
      [undefined, true],
      ['RUNNING', true],
    ]);
  });
});
