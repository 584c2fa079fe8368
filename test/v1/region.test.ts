import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DATA_OFFSET, V1Region, type V1Registers } from '../../src/v1/region.ts';
import { noise } from '../support/bytes.ts';
import { outcome, thrownBy } from '../support/errno.ts';
import { numRuns } from '../support/runs.ts';
import { readRegister, REGISTERS, writeRegister } from '../support/v1-user.ts';

const SECTION = 8192;

/** Registers that record what reached them. */
class Registers implements V1Registers {
  readonly calls: string[] = [];
  counts = { pending: 0, offset: DATA_OFFSET, size: 0 };
  state = 1;
  readDeviceState(): number {
    this.calls.push('readDeviceState');
    return this.state;
  }
  writeDeviceState(value: number): void {
    this.calls.push(`writeDeviceState ${value}`);
  }
  readPendingBytes(): number {
    this.calls.push('readPendingBytes');
    return this.counts.pending;
  }
  readDataOffset(): number {
    this.calls.push('readDataOffset');
    return this.counts.offset;
  }
  readDataSize(): number {
    this.calls.push('readDataSize');
    return this.counts.size;
  }
  writeDataSize(size: number): void {
    this.calls.push(`writeDataSize ${size}`);
  }
  reset(): void {
    this.calls.push('reset');
  }
}

function region(): { registers: Registers; region: V1Region; section: Uint8Array } {
  const registers = new Registers();
  const section = noise(SECTION);
  return { registers, section, region: new V1Region(registers, section) };
}

const starts = new Map<number, number>(Object.values(REGISTERS).map(({ offset, width }) => [offset, width]));

describe('V1Region layout', () => {
  test('has the registers in a page of their own, whatever a page of the host is, so that the data section can be mapped', () => {
    const { region: r, section } = region();
    for (const page of [4096, 16_384, 65_536]) expect([page, DATA_OFFSET % page]).toEqual([page, 0]);
    expect([r.regionSize, r.dataSection]).toEqual([DATA_OFFSET + SECTION, { offset: DATA_OFFSET, size: SECTION }]);
    expect(r.mapped).toBe(section);
  });
});

describe('V1Region registers', () => {
  test('take an access only at their native width and alignment: every offset, every width', () => {
    const { region: r, registers } = region();
    for (let offset = 0; offset < 64; offset += 1) {
      for (let width = 0; width <= 16; width += 1) {
        const native = starts.get(offset) === width;
        expect([offset, width, outcome(() => r.read(offset, new Uint8Array(width)))]).toEqual([
          offset,
          width,
          native ? 'OK' : 'EINVAL',
        ]);
        const writable = native && offset !== REGISTERS.pending_bytes.offset && offset !== REGISTERS.data_offset.offset;
        expect([offset, width, outcome(() => r.write(offset, new Uint8Array(width)))]).toEqual([
          offset,
          width,
          writable ? 'OK' : 'EINVAL',
        ]);
      }
    }
    // one call for each access that is allowed, none for `reserved` and for refused ones
    expect(registers.calls).toEqual([
      'readDeviceState',
      'writeDeviceState 0',
      'readPendingBytes',
      'readDataOffset',
      'readDataSize',
      'writeDataSize 0',
    ]);
  });

  test('refuse accesses to the rest of their page, and across its end', () => {
    const { region: r } = region();
    for (const [offset, length] of [
      [32, 4],
      [2048, 8],
      [DATA_OFFSET - 8, 8],
      [DATA_OFFSET - 4, 8],
      [DATA_OFFSET - 1, 2],
      [0, DATA_OFFSET],
      [0, DATA_OFFSET + 1],
    ] as const) {
      expect(outcome(() => r.read(offset, new Uint8Array(length)))).toBe('EINVAL');
      expect(outcome(() => r.write(offset, new Uint8Array(length)))).toBe('EINVAL');
    }
  });

  test('reserved reads 0 and ignores writes', () => {
    const { region: r, registers } = region();
    writeRegister(r, 'reserved', 0xffff_ffff);
    const bytes = Uint8Array.of(1, 2, 3, 4);
    r.read(4, bytes);
    expect([...bytes]).toEqual([0, 0, 0, 0]);
    expect(registers.calls).toEqual([]);
  });

  test.each(['pending_bytes', 'data_offset'] as const)('%s is read only', (name) => {
    const { region: r } = region();
    expect(thrownBy(() => writeRegister(r, name, 1))).toMatchObject({
      code: 'ERR_ACCESS',
      errno: 'EINVAL',
      message: `migration region: write of ${name}: the register is read only`,
    });
  });

  test('device_state passes all 32 bits of a write, the reserved ones too', () => {
    const { region: r, registers } = region();
    for (const value of [1, 0x8000_0003, 0xffff_ffff]) writeRegister(r, 'device_state', value);
    expect(registers.calls).toEqual([
      'writeDeviceState 1',
      'writeDeviceState 2147483651',
      'writeDeviceState 4294967295',
    ]);
  });

  test('counts are little endian u64s beyond 32 bits', () => {
    const { region: r, registers } = region();
    fc.assert(
      fc.property(fc.nat(Number.MAX_SAFE_INTEGER), (value) => {
        registers.counts = { pending: value, offset: value, size: value };
        for (const name of ['pending_bytes', 'data_offset', 'data_size'] as const) {
          const bytes = new Uint8Array(8);
          r.read(REGISTERS[name].offset, bytes);
          expect(Buffer.from(bytes).readBigUInt64LE()).toBe(BigInt(value));
        }
      }),
      { numRuns: numRuns() },
    );
  });

  test('a refused access says what was tried and why', () => {
    const { region: r } = region();
    expect(thrownBy(() => r.read(8, new Uint8Array(4))).message).toBe(
      'migration region: read of 4 bytes at 8: pending_bytes is 8 bytes wide',
    );
    expect(thrownBy(() => r.write(12, new Uint8Array(4))).message).toBe(
      'migration region: write of 4 bytes at 12: no register begins there',
    );
  });
});

describe('V1Region data_size', () => {
  test.each([0, 1, SECTION - 1, SECTION])('takes a write of %i', (size) => {
    const { region: r, registers } = region();
    writeRegister(r, 'data_size', size);
    expect(registers.calls).toEqual([`writeDataSize ${size}`]);
  });

  test.each([BigInt(SECTION) + 1n, 2n ** 32n, 2n ** 32n + 8n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n])(
    'refuses a write of %d, more than the data section holds',
    (size) => {
      const { region: r, registers } = region();
      expect(thrownBy(() => writeRegister(r, 'data_size', size)).message).toBe(
        `migration region: write of data_size ${size}: the data section has ${SECTION} bytes`,
      );
      expect(registers.calls).toEqual([]);
    },
  );
});

describe('V1Region data section', () => {
  test('takes any width at any offset, in both directions', () => {
    const { region: r, registers, section } = region();
    const expected = section.slice();
    fc.assert(
      fc.property(fc.nat(SECTION), fc.nat(SECTION), fc.nat(), (a, b, seed) => {
        const [at, end] = [Math.min(a, b), Math.max(a, b)];
        const bytes = noise(end - at, seed);
        r.write(DATA_OFFSET + at, bytes);
        expected.set(bytes, at);
        const back = new Uint8Array(end - at);
        r.read(DATA_OFFSET + at, back);
        expect(back).toBeBytes(bytes);
      }),
      { numRuns: numRuns() },
    );
    expect(section).toBeBytes(expected);
    expect(registers.calls).toEqual([]);
  });

  test('ends where the region ends', () => {
    const { region: r } = region();
    const end = DATA_OFFSET + SECTION;
    const edges: readonly (readonly [number, number, string])[] = [
      [end - 1, 1, 'OK'],
      [end - 1, 2, 'EINVAL'],
      [end, 0, 'OK'],
      [end, 1, 'EINVAL'],
      [end + 1, 0, 'EINVAL'],
      [DATA_OFFSET, SECTION + 1, 'EINVAL'],
    ];
    for (const [offset, length, expected] of edges) {
      expect([offset, length, outcome(() => r.read(offset, new Uint8Array(length)))]).toEqual([
        offset,
        length,
        expected,
      ]);
      expect([offset, length, outcome(() => r.write(offset, new Uint8Array(length)))]).toEqual([
        offset,
        length,
        expected,
      ]);
    }
  });

  test.each([2 ** 32, 2 ** 53, 2 ** 63, 2 ** 64, Number.POSITIVE_INFINITY, Number.NaN, -1, -4096, 4096.5, 0.5])(
    'refuses an access at %d',
    (offset) => {
      const { region: r, section } = region();
      const before = section.slice();
      for (const length of [0, 1, 4, 8, 4096]) {
        expect(outcome(() => r.read(offset, new Uint8Array(length)))).toBe('EINVAL');
        expect(outcome(() => r.write(offset, new Uint8Array(length)))).toBe('EINVAL');
      }
      expect(section).toBeBytes(before);
    },
  );

  test('is the mapped memory', () => {
    const { region: r, section } = region();
    section[7] = 0xee;
    const byte = new Uint8Array(1);
    r.read(DATA_OFFSET + 7, byte);
    expect(byte[0]).toBe(0xee);
  });
});

describe('V1Region reads of registers', () => {
  test('are repeatable: the same value each time, into a view of a larger buffer too', () => {
    const { region: r, registers } = region();
    registers.counts.pending = 77;
    expect([readRegister(r, 'pending_bytes'), readRegister(r, 'pending_bytes')]).toEqual([77, 77]);
    const buffer = new Uint8Array(24).fill(0xa5);
    r.read(8, buffer.subarray(8, 16));
    expect([...buffer]).toEqual([
      ...new Uint8Array(8).fill(0xa5),
      77,
      ...new Uint8Array(7),
      ...new Uint8Array(8).fill(0xa5),
    ]);
  });

  test.each([-1, 1.5, Number.NaN, 2 ** 53, 2 ** 64, Number.POSITIVE_INFINITY])(
    'of a device that says %d are EIO, not another number',
    (value) => {
      const { registers, section } = region();
      const lying: V1Registers = {
        readDeviceState: () => value,
        writeDeviceState: () => {},
        readPendingBytes: () => value,
        readDataOffset: () => value,
        readDataSize: () => value,
        writeDataSize: () => {},
        reset: () => registers.reset(),
      };
      const r = new V1Region(lying, section);
      for (const name of ['device_state', 'pending_bytes', 'data_offset', 'data_size'] as const) {
        expect(outcome(() => readRegister(r, name))).toBe('EIO');
      }
    },
  );

  test.each([2 ** 32, 2 ** 32 + 1])('of a device_state of %d, which has more than 32 bits, are EIO', (state) => {
    const { region: r, registers } = region();
    registers.state = state;
    expect(outcome(() => readRegister(r, 'device_state'))).toBe('EIO');
    registers.state = 2 ** 32 - 1;
    expect(readRegister(r, 'device_state')).toBe(2 ** 32 - 1);
  });

  test('reset goes to the registers', () => {
    const { region: r, registers } = region();
    r.reset();
    expect(registers.calls).toEqual(['reset']);
  });
});
