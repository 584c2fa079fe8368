import { describe, expect, test } from 'vitest';
import { mappedAt } from '../../src/v1/data-section.ts';
import { presentV2 } from '../../src/bridge/index.ts';
import type { V1Device } from '../../src/v1/device.ts';
import { V2 } from '../../src/v2/states.ts';
import { noise } from '../support/bytes.ts';
import { TapeV1 } from '../support/tape-v1.ts';

/** A region of 16 KiB with its data section at 8192, of which the first 4096 bytes are mapped. */
const region = {
  regionSize: 16_384,
  dataSection: { offset: 8192, size: 8192 },
  mapped: noise(4096),
  read: () => {},
  write: () => {},
  reset: () => {},
} satisfies V1Device;

describe('mappedAt', () => {
  test.each([
    ['the first byte', 8192, 1, [0, 1]],
    ['all of it', 8192, 4096, [0, 4096]],
    ['the last byte', 12_287, 1, [4095, 4096]],
    ['what is mapped of bytes across its end', 12_280, 100, [4088, 4096]],
  ] as const)('is %s', (_, offset, length, [from, to]) => {
    const bytes = mappedAt(region, offset, length);
    expect(bytes?.buffer).toBe(region.mapped.buffer);
    expect(bytes).toEqual(region.mapped.subarray(from, to));
  });

  test.each([
    ['before the data section', 8191],
    ['in the page of the registers, behind them', 32],
    ['behind what is mapped', 12_288],
    ['at the end of the region', 16_384],
  ])('is nothing %s', (_, offset) => {
    expect(mappedAt(region, offset, 100)).toBeUndefined();
  });

  test('is nothing if nothing is mapped', () => {
    expect(mappedAt({ ...region, mapped: undefined }, 8192, 1)).toBeUndefined();
  });
});

describe('presentV2 of a driver that can map the first half of its data section', () => {
  const HALF = 4096;

  function halfMapped(tape: TapeV1): V1Device {
    const { device } = tape;
    return {
      regionSize: device.regionSize,
      dataSection: device.dataSection,
      mapped: tape.section.subarray(0, HALF),
      read: (offset, into) => device.read(offset, into),
      write: (offset, from) => device.write(offset, from),
      reset: () => device.reset(),
    };
  }

  test('reads the other half with accesses, and does not take it for the end of the stream', () => {
    const buffer = noise(2 * HALF);
    const session = presentV2(halfMapped(new TapeV1({ stopCopy: [buffer], section: 2 * HALF }))).setState(V2.STOP_COPY);
    expect(session?.peek?.(2 * HALF)).toEqual(buffer.subarray(0, HALF));
    session?.consume?.(HALF);
    expect(session?.peek?.(HALF)).toBeUndefined();
    const rest = new Uint8Array(2 * HALF);
    expect(session?.read(rest)).toBe(HALF);
    expect(rest.subarray(0, HALF)).toBeBytes(buffer.subarray(HALF));
  });

  test('writes the other half with accesses', () => {
    const tape = new TapeV1({ section: 2 * HALF });
    const bytes = noise(2 * HALF);
    const session = presentV2(halfMapped(tape)).setState(V2.RESUMING);
    session?.room?.(2 * HALF)?.set(bytes.subarray(0, HALF));
    session?.fill?.(HALF);
    expect(session?.room?.(HALF)).toBeUndefined();
    expect(session?.write(bytes.subarray(HALF))).toBe(HALF);
    expect(tape.loaded).toBeBytes(bytes);
  });
});
