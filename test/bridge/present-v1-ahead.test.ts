import { describe, expect, test } from 'vitest';
import { PRESENT_V1_STATE_SIZE, presentV1 } from '../../src/bridge/index.ts';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import { V1 } from '../../src/v1/states.ts';
import type { V1Device } from '../../src/v1/device.ts';
import type { V2DataSession, V2Device } from '../../src/v2/device.ts';
import { noise } from '../support/bytes.ts';
import { failure, notYet, outcome } from '../support/errno.ts';
import { TapeV2, type Answer } from '../support/tape-v2.ts';
import { readRegister, v1User, writeRegister } from '../support/v1-user.ts';

const HALF = 4096;
const [one, two, three] = [noise(HALF, 1), noise(HALF, 2), noise(500, 3)];

/** Where in the data section each read of the data fd has put its bytes, how many, and whose turn it was. */
interface Reading {
  readonly at: number;
  readonly bytes: number;
}

/** A driver of which the places of its reads are noted. */
function noting(tape: TapeV2, section: Uint8Array, readings: Reading[]): V2Device {
  return new Proxy(tape, {
    get(target, name) {
      if (name !== 'openSession') {
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      }
      return (): V2DataSession | undefined => {
        const session = target.openSession();
        if (session === undefined) return undefined;
        const read = (into: Uint8Array): number => {
          const bytes = session.read(into);
          readings.push({ at: into.byteOffset - section.byteOffset, bytes });
          return bytes;
        };
        return { ...session, read };
      };
    },
  });
}

function world(
  answers: Answer[],
  length = 2 * HALF,
): { device: () => V1Device; readings: Reading[]; state: Uint8Array } {
  const tape = new TapeV2({ stopAnswers: answers, stopCopyLength: 2 * HALF + 500 });
  const section = new Uint8Array(length);
  const state = new Uint8Array(PRESENT_V1_STATE_SIZE);
  const readings: Reading[] = [];
  const driver = noting(tape, section, readings);
  return { device: () => presentV1(driver, { dataSection: section, bufferSize: HALF, state }), readings, state };
}

const offset = (device: V1Device): number => readRegister(device, 'data_offset') - DATA_OFFSET;
const size = (device: V1Device): number => readRegister(device, 'data_size');
const pending = (device: V1Device): number => readRegister(device, 'pending_bytes');
const bytesOf = (device: V1Device, at: number, length: number): Uint8Array =>
  (device.mapped as Uint8Array).slice(at, at + length);

describe('presentV1 reads ahead', () => {
  test('into the other half, while the shown buffer stays as it is, and shows it after the acknowledgement', () => {
    const { device, readings } = world([one, two, three]);
    const vmm = device();
    writeRegister(vmm, 'device_state', V1.STOP_COPY);
    const total = pending(vmm);
    const first = offset(vmm);
    vmm.readAhead?.(); // before data_size was read it is no different
    expect([size(vmm), bytesOf(vmm, first, HALF)]).toEqual([HALF, one]);
    expect(readings.map(({ at }) => at)).toEqual([first, HALF - first]);
    vmm.readAhead?.();
    expect(readings.length, 'it has the next already').toBe(2);
    expect(pending(vmm)).toBe(total - HALF);
    expect(readings.length, 'nothing has to be read now').toBe(2);
    expect(offset(vmm)).toBe(HALF - first);
    expect(bytesOf(vmm, HALF - first, size(vmm))).toBeBytes(two);
    expect([pending(vmm), offset(vmm), size(vmm)]).toEqual([500, first, 500]);
    expect(bytesOf(vmm, first, 500)).toBeBytes(three);
    expect(pending(vmm)).toBe(0);
  });

  test('nothing before a buffer was shown, in pre-copy, at the end, or into a section without halves', () => {
    const early = world([one, two]);
    const vmm = early.device();
    writeRegister(vmm, 'device_state', V1.PRE_COPY);
    pending(vmm);
    offset(vmm);
    vmm.readAhead?.();
    writeRegister(vmm, 'device_state', V1.STOP_COPY);
    vmm.readAhead?.();
    expect(early.readings.filter(({ bytes }) => bytes > 0)).toEqual([]);

    const small = world([one, two], HALF);
    const other = small.device();
    writeRegister(other, 'device_state', V1.STOP_COPY);
    expect([pending(other), offset(other), size(other)]).toEqual([2 * HALF + 500, 0, HALF]);
    other.readAhead?.();
    expect(small.readings).toEqual([{ at: 0, bytes: HALF }]);

    const short = world([three]);
    const last = short.device();
    writeRegister(last, 'device_state', V1.STOP_COPY);
    pending(last);
    offset(last);
    const { length } = short.readings;
    last.readAhead?.();
    expect(short.readings.length, 'the end has been read').toBe(length);
  });

  test('has a device that gives data while it is not read give the next buffer where it will be shown', () => {
    const tape = new TapeV2({ stopAnswers: [one, two, three] });
    const section = new Uint8Array(2 * HALF);
    const begun: (readonly [at: number, bytes: number] | undefined)[] = [];
    const giving = new Proxy(tape, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name, target);
        if (name !== 'openSession') return typeof value === 'function' ? (value.bind(target) as unknown) : value;
        const beginRead = (into?: Uint8Array): void => void begun.push(into && [into.byteOffset, into.length]);
        return (): V2DataSession | undefined => {
          const session = target.openSession();
          return session && { ...session, beginRead };
        };
      },
    });
    const vmm = presentV1(giving, { dataSection: section, bufferSize: HALF });
    writeRegister(vmm, 'device_state', V1.STOP_COPY);
    vmm.readAhead?.(); // nothing was shown
    expect(begun).toEqual([]);
    const places: number[] = [];
    for (const expected of [one, two, three]) {
      pending(vmm);
      const at = offset(vmm);
      places.push(at);
      expect(bytesOf(vmm, at, size(vmm))).toBeBytes(expected);
      vmm.readAhead?.();
      expect(bytesOf(vmm, at, expected.length), 'nothing was read').toBeBytes(expected);
    }
    expect(places).toEqual([0, HALF, 0]);
    expect(begun, 'the third buffer was the last').toEqual([
      [HALF, HALF],
      [0, HALF],
    ]);
    expect(pending(vmm)).toBe(0);

    begun.length = 0;
    const small = presentV1(giving, { dataSection: section.subarray(0, HALF), bufferSize: HALF });
    tape.reset();
    tape.stopAnswers.push(one, two);
    writeRegister(small, 'device_state', V1.STOP_COPY);
    pending(small);
    offset(small);
    small.readAhead?.();
    expect(begun, 'there is no other half').toEqual([undefined]);
  });

  test('and an error is for the next access; "not yet" is for nobody', () => {
    for (const [error, told] of [
      [failure('EIO'), 'EIO'],
      [notYet(), 'OK'],
    ] as const) {
      const { device } = world([one, error, two]);
      const vmm = device();
      writeRegister(vmm, 'device_state', V1.STOP_COPY);
      pending(vmm);
      const at = offset(vmm);
      expect(outcome(() => vmm.readAhead?.())).toBe('OK');
      expect(bytesOf(vmm, at, size(vmm)), 'what is shown').toBeBytes(one);
      expect(outcome(() => pending(vmm))).toBe(told);
    }
  });

  test('to the place where a successor reads what the call had not finished, which the driver gives once', () => {
    const { device, readings, state } = world([one, two, three]);
    let vmm = device();
    writeRegister(vmm, 'device_state', V1.STOP_COPY);
    pending(vmm);
    offset(vmm);
    size(vmm);
    const before = state.slice();
    vmm.readAhead?.();
    const [, ahead] = readings;
    state.set(before); // killed before that counted
    vmm = device();
    pending(vmm);
    expect(readings[2]?.at).toBe(ahead?.at);
  });

  test('and what was read ahead goes with its session', () => {
    const { device } = world([one, two, three]);
    const vmm = device();
    const user = v1User(vmm);
    user.setState(V1.STOP_COPY);
    user.pending();
    user.buffer();
    user.setState(V1.STOP);
    expect(user.pending()).toBe(0);
    user.setState(V1.RESUMING);
    expect(user.offset(), 'where data belongs').toBe(DATA_OFFSET);
  });
});
