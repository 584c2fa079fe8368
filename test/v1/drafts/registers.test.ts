import { describe, expect, it, test } from 'vitest';
import { vfio_device_migration_info_2018, vfio_device_migration_info_2019 } from '../../../src/abi/vfio-drafts.ts';
import { fieldWidth } from '../../../src/abi/struct.ts';
import { DATA_OFFSET } from '../../../src/v1/region.ts';
import type { Draft } from '../../../src/v1/drafts/device.ts';
import { DraftRegion } from '../../../src/v1/drafts/region.ts';
import { DraftAccess, draftRegisters } from '../../../src/v1/drafts/registers.ts';
import { outcome } from '../../support/errno.ts';

/** The structs, written down once more: the patches' field, its offset, its width. */
const LAYOUTS: Readonly<Record<Draft, readonly (readonly [string, number, number])[]>> = {
  'draft-2018': [
    ['device_state', 0, 4],
    ['pending_precopy_only', 4, 8],
    ['pending_compatible', 12, 8],
    ['pending_postcopy_only', 20, 8],
    ['pending_threshold_size', 28, 8],
    ['data_offset', 36, 8],
    ['data_size', 44, 8],
    ['dirty_pfns_start_addr', 52, 8],
    ['dirty_pfns_total', 60, 8],
    ['dirty_pfns_copied', 68, 8],
  ],
  'draft-2019': [
    ['device_state', 0, 4],
    ['reserved', 4, 4],
    ['pending_bytes', 8, 8],
    ['data_offset', 16, 8],
    ['data_size', 24, 8],
    ['start_pfn', 32, 8],
    ['page_size', 40, 8],
    ['total_pfns', 48, 8],
    ['copied_pfns', 56, 8],
  ],
};

const structs = { 'draft-2018': vfio_device_migration_info_2018, 'draft-2019': vfio_device_migration_info_2019 };

describe.each(['draft-2018', 'draft-2019'] as const)('the registers of %s', (draft) => {
  it('lie one behind the other, without a hole', () => {
    const { size, fields } = structs[draft];
    const found = Object.entries(fields).map(([name, [kind, offset]]) => [name, offset, fieldWidth(kind)]);
    expect(found).toEqual(LAYOUTS[draft]);
    const end = LAYOUTS[draft].reduce((at, [name, offset, width]) => {
      expect([name, offset]).toEqual([name, at]);
      return at + width;
    }, 0);
    expect(end).toBe(size);
  });

  it('are found at their own place and width alone', () => {
    const table = draftRegisters[draft];
    for (let offset = 0; offset < table.size + 8; offset += 1) {
      for (const length of [0, 1, 2, 4, 7, 8, 9, 16]) {
        const layout = LAYOUTS[draft].find(([, at, width]) => at === offset && width === length);
        expect([offset, length, table.at(offset, length)]).toEqual([offset, length, layout?.[0]]);
      }
    }
  });

  it('are reached by name, with all their bits', () => {
    const memory = new Map<string, bigint>();
    const region = new DraftRegion(
      draft,
      {
        readRegister: (register) => memory.get(register) ?? 0n,
        writeRegister: (register, value) => memory.set(register, value),
        reset: () => {},
      },
      new Uint8Array(4096),
    );
    const access = new DraftAccess<Draft>(region, draft);
    for (const [name, , width] of LAYOUTS[draft]) {
      const value = 0xfedc_ba98_7654_3210n & ((1n << BigInt(8 * width)) - 1n);
      access.write(name as 'data_size', value);
      expect([name, memory.get(name), access.read(name as 'data_size')]).toEqual([name, value, value]);
    }
  });
});

describe('DraftRegion', () => {
  const answers = { value: 0 as number | bigint };
  const region = new DraftRegion(
    'draft-2018',
    { readRegister: () => answers.value, writeRegister: () => {}, reset: () => {} },
    new Uint8Array(8192),
  );

  test.each([
    [4, 8, 'OK'],
    [8, 8, 'EINVAL'],
    [4, 4, 'EINVAL'],
    [0, 8, 'EINVAL'],
    [1, 4, 'EINVAL'],
    [76, 4, 'EINVAL'],
    [72, 4, 'EINVAL'],
    [DATA_OFFSET - 4, 8, 'EINVAL'],
    [DATA_OFFSET, 8192, 'OK'],
    [DATA_OFFSET + 1, 8192, 'EINVAL'],
    [DATA_OFFSET + 8192, 0, 'OK'],
    [DATA_OFFSET + 8193, 0, 'EINVAL'],
    [Number.NaN, 4, 'EINVAL'],
    [2 ** 60, 4, 'EINVAL'],
    [-4, 4, 'EINVAL'],
  ])('an access at %d of %d bytes: %s', (offset, length, expected) => {
    answers.value = 1;
    const read = outcome(() => region.read(offset, new Uint8Array(length)));
    const write = outcome(() => region.write(offset, new Uint8Array(length)));
    expect([read, write]).toEqual([expected, expected]);
  });

  test.each([-1, 0.5, Number.NaN, 2 ** 53, -1n, 2n ** 64n])('a device that says %s is at fault', (value) => {
    answers.value = value;
    expect(outcome(() => region.read(4, new Uint8Array(8)))).toBe('EIO');
  });

  it('refuses a user of another generation', () => {
    expect(outcome(() => new DraftAccess(region, 'draft-2019'))).toBe('EINVAL');
  });
});
