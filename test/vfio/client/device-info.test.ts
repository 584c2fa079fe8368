import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { vfio_region_info } from '../../../src/abi/vfio-device.ts';
import { ShimError } from '../../../src/error.ts';
import { deviceInfo, findMigrationRegion, regionInfo } from '../../../src/vfio/client/device-info.ts';
import { join } from '../../support/bytes.ts';
import { outcome, thrownBy } from '../../support/errno.ts';
import { failed, BytePort, sparseCap, typeCap, type FakeRegion } from '../../support/byte-port.ts';
import { numRuns, PROPERTY_TIMEOUT } from '../../support/runs.ts';

let fake = new BytePort();
beforeEach(() => {
  fake = new BytePort();
});

function info(region: FakeRegion): ReturnType<typeof regionInfo> {
  fake.regions.set(4, region);
  return regionInfo(fake, 4);
}

describe('deviceInfo', () => {
  it('gives flags and counts', () => {
    fake.regionCount = 9;
    expect(deviceInfo(fake)).toEqual({ flags: 3, regions: 9, irqs: 5 });
  });
});

describe('regionInfo', () => {
  it('of a plain region has no capabilities, and is asked for once', () => {
    expect(info({ size: 4096n, flags: 7, offset: 2n ** 63n })).toEqual({
      index: 4,
      flags: 7,
      size: 4096,
      offset: 2n ** 63n,
      type: undefined,
      sparse: undefined,
    });
    expect(fake.asked).toHaveLength(1);
  });

  it('asks again with room for the capabilities', () => {
    const areas = [
      { offset: 4096n, size: 8192n },
      { offset: 65536n, size: 4096n },
    ];
    const found = info({ size: 2n ** 20n, caps: join([typeCap(3, 1, 48), sparseCap(areas)]) });
    expect(found?.type).toEqual({ type: 3, subtype: 1 });
    expect(found?.sparse).toEqual([
      { offset: 4096, size: 8192 },
      { offset: 65_536, size: 4096 },
    ]);
    expect(fake.asked).toHaveLength(2);
  });

  it('asks again for up to 64 KiB, and takes the first answer where the second is none', () => {
    const caps = typeCap(3, 1);
    const type = { type: 3, subtype: 1 };
    expect([info({ size: 1n, caps, argsz: 65_536 })?.type, fake.asked.length]).toEqual([type, 2]);
    expect([info({ size: 1n, caps, argsz: 65_537 })?.type, fake.asked.length]).toEqual([undefined, 3]);
    fake.answer = (_, argument) => {
      if (argument.length > 32) throw failed('EINVAL');
      return false;
    };
    expect(info({ size: 9n, caps })).toMatchObject({ size: 9, type: undefined });
  });

  it('takes as many areas as the list says, and none of one that says so', () => {
    const areas = [0n, 5n].map((offset) => ({ offset, size: 9n }));
    expect(info({ size: 1n, caps: sparseCap(areas, 0, 1) })?.sparse).toEqual([{ offset: 0, size: 9 }]);
    expect(info({ size: 1n, caps: sparseCap([]) })?.sparse).toEqual([]);
  });

  it('takes the capabilities that the flag says are there', () => {
    fake.answer = (_, argument) => {
      argument.set(typeCap(3, 1).subarray(0, argument.length - 32), 32);
      const argsz = 32 + typeCap(3, 1).length;
      vfio_region_info.encode({ argsz, index: 4, size: 1n, offset: 0n, flags: 3, cap_offset: 32 }, argument);
      return true;
    };
    expect(regionInfo(fake, 4)?.type).toBeUndefined();
  });

  it('is none where the driver has none, and throws for any other failure', () => {
    expect(regionInfo(fake, 11)).toBeUndefined();
    fake.answer = () => {
      throw failed('ENODEV');
    };
    expect(outcome(() => regionInfo(fake, 11))).toBe('ENODEV');
  });

  it.each<[string, FakeRegion, string]>([
    ['to itself', { size: 1n, caps: typeCap(3, 1, 32) }, 'type'],
    ['back into the struct', { size: 1n, caps: typeCap(3, 1, 8) }, 'type'],
    ['beyond the bytes', { size: 1n, caps: typeCap(3, 1, 40_000) }, 'type'],
    ['to the last byte', { size: 1n, caps: typeCap(3, 1, 47) }, 'type'],
    ['nowhere', { size: 1n, caps: typeCap(3, 1), capOffset: 0 }, 'none'],
    ['far from the beginning', { size: 1n, caps: typeCap(3, 1), capOffset: 0xffff_fff8 }, 'none'],
    ['to a type that is cut', { size: 1n, caps: typeCap(3, 1).subarray(0, 15) }, 'none'],
    ['to a list that is cut', { size: 1n, caps: sparseCap([]).subarray(0, 15) }, 'none'],
    [
      'to an area that is cut',
      { size: 1n, caps: sparseCap([0n, 5n].map((offset) => ({ offset, size: 9n }))).subarray(0, 47) },
      'sparse',
    ],
    ['and is cut', { size: 1n, caps: typeCap(3, 1).subarray(0, 8) }, 'none'],
    ['into room that was not given', { size: 1n, caps: typeCap(3, 1), argsz: 0xffff_ffff }, 'none'],
    ['into no room', { size: 1n, caps: typeCap(3, 1), argsz: 8 }, 'none'],
    ['with a list without end', { size: 1n, caps: sparseCap([{ offset: 0n, size: 9n }], 0, 0xffff_ffff) }, 'sparse'],
  ])('follows a chain that leads %s no further than it goes', (_what, region, found) => {
    const result = info(region);
    expect(result?.type).toEqual(found === 'type' ? { type: 3, subtype: 1 } : undefined);
    expect(result?.sparse).toEqual(found === 'sparse' ? [{ offset: 0, size: 9 }] : undefined);
  });

  it('refuses sizes that there are no numbers for', () => {
    const areas = [{ offset: 2n ** 60n, size: 1n }];
    expect(info({ size: 2n ** 53n - 1n })?.size).toBe(Number.MAX_SAFE_INTEGER);
    for (const region of [{ size: 2n ** 53n }, { size: 1n, caps: sparseCap(areas) }]) {
      expect(thrownBy(() => info(region))).toMatchObject({ code: 'ERR_DEVICE', errno: 'EIO' });
    }
  });

  it('survives any answer', { timeout: PROPERTY_TIMEOUT }, () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 32, maxLength: 200 }),
        fc.nat(255),
        fc.nat(255),
        (answer, argsz, first) => {
          const bytes = answer.slice();
          new DataView(bytes.buffer).setUint32(0, argsz, true);
          new DataView(bytes.buffer).setUint32(12, first, true);
          fake.answer = (request, argument) => {
            expect(request).toBe('VFIO_DEVICE_GET_REGION_INFO');
            argument.set(bytes.subarray(0, argument.length));
            return true;
          };
          try {
            expect(regionInfo(fake, 3)).toMatchObject({ index: 3 });
          } catch (error) {
            expect(error).toBeInstanceOf(ShimError);
          }
        },
      ),
      { numRuns: numRuns() },
    );
  });
});

describe('findMigrationRegion', () => {
  it('finds the region by its type, wherever it is', () => {
    fake.regions.set(0, { size: 4096n });
    fake.regions.set(9, { size: 4096n, caps: typeCap(1, 1) });
    fake.regions.set(10, { size: 4096n, caps: typeCap(3, 2) });
    fake.regions.set(12, { size: 8192n, caps: typeCap(3, 1) });
    expect(findMigrationRegion(fake)).toMatchObject({ index: 12, size: 8192 });
    fake.regions.delete(12);
    expect(findMigrationRegion(fake)).toBeUndefined();
  });

  it('does not look for ever', () => {
    fake.regionCount = 0xffff_ffff;
    expect(findMigrationRegion(fake)).toBeUndefined();
    expect(fake.asked).toHaveLength(1 + 4096);
  });
});
