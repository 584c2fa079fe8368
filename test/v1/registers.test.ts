import { describe, expect, test } from 'vitest';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import { V1RegisterAccess } from '../../src/v1/registers.ts';
import type { V1Device } from '../../src/v1/device.ts';
import { noise } from '../support/bytes.ts';
import { failure, outcome, thrownBy } from '../support/errno.ts';
import { TapeV1 } from '../support/tape-v1.ts';

function access(): { tape: TapeV1; registers: V1RegisterAccess; device: V1Device } {
  const tape = new TapeV1({ preCopy: [noise(100)] });
  const { device } = tape;
  return { tape, device, registers: new V1RegisterAccess(device) };
}

describe('V1RegisterAccess.deviceState', () => {
  test.each([0, 1, 2, 3, 4, 6])('shows %i without the reserved bits', (state) => {
    const { tape, registers } = access();
    tape.state = state;
    tape.reserved = 0xffff_fff8;
    expect(registers.deviceState()).toBe(state);
  });

  test.each([5, 7])('refuses %i, which has no meaning', (state) => {
    const { tape, registers } = access();
    tape.state = state;
    expect(thrownBy(() => registers.deviceState())).toMatchObject({ code: 'ERR_STATE_UNKNOWN', errno: 'EIO' });
  });
});

describe('V1RegisterAccess.setDeviceState', () => {
  test.each([0, 8, 0xffff_fff8])('keeps the reserved bits %i (read-modify-write)', (reserved) => {
    const { tape, registers } = access();
    tape.reserved = reserved;
    for (const state of [3, 2, 0, 1, 4, 1]) registers.setDeviceState(state);
    expect(tape.states).toEqual([3, 2, 0, 1, 4, 1]);
  });

  test('passes the errno of a refused write on', () => {
    const { tape, registers } = access();
    tape.refusals.set('1 3', { error: failure('EBUSY') });
    expect(outcome(() => registers.setDeviceState(3))).toBe('EBUSY');
  });
});

describe('V1RegisterAccess.dataBuffer', () => {
  test('is what the driver shows, the same on repetition', () => {
    const { registers } = access();
    registers.setDeviceState(3);
    expect(registers.dataBuffer()).toEqual({ offset: DATA_OFFSET, size: 100 });
    expect(registers.dataBuffer()).toEqual({ offset: DATA_OFFSET, size: 100 });
  });

  test.each([
    ['a size beyond the region', { size: 65_537 }],
    ['a size of 2^53 - 1', { size: Number.MAX_SAFE_INTEGER }],
    ['a size beyond 2^53', { size: 2 ** 63 }],
    ['an offset beyond the region', { offset: DATA_OFFSET + 65_536, size: 1 }],
    ['an offset and a size that wrap around', { offset: Number.MAX_SAFE_INTEGER, size: 4096 }],
    ['data over the registers', { offset: 0, size: 100 }],
    ['data over the last register', { offset: 31, size: 1 }],
  ])('refuses %s', (_, lies) => {
    const { tape, registers } = access();
    registers.setDeviceState(3);
    tape.lies = lies;
    expect(thrownBy(() => registers.dataBuffer())).toMatchObject({ code: 'ERR_DEVICE', errno: 'EIO' });
  });

  test('with size 0 is "none now", wherever it points', () => {
    const { tape, registers } = access();
    tape.lies = { offset: 0, size: 0 };
    expect(registers.dataBuffer().size).toBe(0);
  });

  test.each([
    ['in the page of the registers, behind them', { offset: 32, size: 100 }],
    ['up to the end of the region', { offset: DATA_OFFSET + 65_536 - 1, size: 1 }],
  ])('takes data %s', (_, lies) => {
    const { tape, registers } = access();
    tape.lies = lies;
    expect(registers.dataBuffer()).toEqual(lies);
  });
});

describe('V1RegisterAccess.dataSpace', () => {
  test.each([
    [DATA_OFFSET, 65_536],
    [DATA_OFFSET + 4096, 61_440],
    [DATA_OFFSET + 65_535, 1],
    [32, DATA_OFFSET + 65_536 - 32],
  ])('at %i has %i bytes', (offset, size) => {
    const { tape, registers } = access();
    tape.lies = { offset };
    expect(registers.dataSpace()).toEqual({ offset, size });
  });

  test.each([0, 31, DATA_OFFSET + 65_536, 2 ** 40, 2 ** 60])('refuses an offset of %i', (offset) => {
    const { tape, registers } = access();
    tape.lies = { offset };
    expect(thrownBy(() => registers.dataSpace())).toMatchObject({ code: 'ERR_DEVICE', errno: 'EIO' });
  });
});

/** A driver of which every u64 register shows this value. */
function driverThatSays(value: bigint): V1Device {
  const { device } = new TapeV1();
  return {
    regionSize: device.regionSize,
    dataSection: device.dataSection,
    mapped: undefined,
    read: (_, into) => new DataView(into.buffer).setBigUint64(0, value, true),
    write: () => {},
    reset: () => {},
  };
}

describe('V1RegisterAccess of a driver whose registers show more than 2^53 - 1', () => {
  test.each([2n ** 53n, 2n ** 64n - 1n])('has no buffer and no space: %i', (value) => {
    const registers = new V1RegisterAccess(driverThatSays(value));
    for (const access of [() => registers.dataBuffer(), () => registers.dataSpace()]) {
      expect(thrownBy(access)).toMatchObject({
        code: 'ERR_DEVICE',
        errno: 'EIO',
        message: `v1 driver: data_offset is ${value}`,
      });
    }
  });

  test('has none either at 2^53 - 1, which lies behind its region', () => {
    const registers = new V1RegisterAccess(driverThatSays(2n ** 53n - 1n));
    expect(thrownBy(() => registers.dataSpace()).message).toBe(
      `v1 driver: wants data at 9007199254740991 of a region of ${DATA_OFFSET + 65_536} bytes`,
    );
  });
});

describe('V1RegisterAccess.dataSpace of a region that goes on behind its data section', () => {
  test.each([
    [4096, 8192],
    [4095, 20_000 - 4095],
    [12_287, 1],
  ])('at %i has %i bytes', (offset, size) => {
    const device: V1Device = {
      regionSize: 20_000,
      dataSection: { offset: 4096, size: 8192 },
      mapped: undefined,
      read: (_, into) => new DataView(into.buffer, into.byteOffset).setBigUint64(0, BigInt(offset), true),
      write: () => undefined,
      reset: () => undefined,
    };
    expect(new V1RegisterAccess(device).dataSpace()).toEqual({ offset, size });
  });
});

describe('V1RegisterAccess.pendingBytes', () => {
  test.each([0, 1, 2 ** 32 + 5, Number.MAX_SAFE_INTEGER])('is a count of %i', (pending) => {
    const { tape, registers } = access();
    tape.lies = { pending };
    expect(registers.pendingBytes()).toBe(pending);
  });

  test.each([2n ** 53n, 2n ** 60n, 2n ** 64n - 1n])(
    'is 2^53-1 where a driver that does not know says %i',
    (pending) => {
      expect(new V1RegisterAccess(driverThatSays(pending)).pendingBytes()).toBe(Number.MAX_SAFE_INTEGER);
    },
  );
});
