import { beforeEach, describe, expect, it } from 'vitest';
import { ShimError } from '../../../src/error.ts';
import type { RegionInfo } from '../../../src/vfio/client/device-info.ts';
import { PortV1Device } from '../../../src/vfio/client/port-v1-device.ts';
import type { RegionPlace, VfioPort } from '../../../src/vfio/port.ts';
import { BytePort, failed } from '../../support/byte-port.ts';
import { noise } from '../../support/bytes.ts';
import { outcome, thrownBy } from '../../support/errno.ts';

let fake = new BytePort();
beforeEach(() => {
  fake = new BytePort(noise(65_536).slice());
});

const region = (more: Partial<RegionInfo> = {}): RegionInfo => ({
  index: 9,
  flags: 7,
  size: 20_480,
  offset: 4096n,
  type: { type: 3, subtype: 1 },
  sparse: undefined,
  ...more,
});

describe('PortV1Device', () => {
  it('reads and writes at the place of its region', () => {
    const device = new PortV1Device(fake, region(), false);
    const into = new Uint8Array(8);
    device.read(16, into);
    expect(into).toBeBytes(noise(65_536).subarray(4112, 4120));
    device.write(5000, Uint8Array.of(1, 2, 3));
    expect([...fake.memory.subarray(9096, 9099)]).toEqual([1, 2, 3]);
    expect(device).toMatchObject({
      regionSize: 20_480,
      dataSection: { offset: 32, size: 20_448 },
      mapped: undefined,
    });
  });

  it('does not reach beyond its region', () => {
    const device = new PortV1Device(fake, region(), false);
    for (const [offset, length] of [
      [20_480, 1],
      [20_476, 8],
      [-8, 8],
    ] as const) {
      expect(outcome(() => device.read(offset, new Uint8Array(length)))).toBe('EINVAL');
      expect(outcome(() => device.write(offset, new Uint8Array(length)))).toBe('EINVAL');
    }
    expect(fake.memory).toBeBytes(noise(65_536));
    expect(outcome(() => device.read(20_476, new Uint8Array(4)))).toBe('OK');
  });

  it('says so where the driver gives nothing', () => {
    const device = new PortV1Device(fake, region({ offset: 65_536n }), false);
    expect(thrownBy(() => device.read(0, new Uint8Array(4)))).toMatchObject({ code: 'ERR_DEVICE', errno: 'EIO' });
    fake.answer = () => {
      throw failed('EBADF');
    };
    expect(outcome(() => device.read(0, new Uint8Array(4)))).toBe('EBADF');
  });

  it('maps the part that the driver lets it map', () => {
    const sparse = [{ offset: 8192, size: 8192 }];
    const device = new PortV1Device(fake, region({ sparse }), true);
    expect(device.dataSection).toEqual({ offset: 8192, size: 8192 });
    expect(device.mapped).toBeBytes(noise(65_536).subarray(12_288, 20_480));
    const unmappable = new PortV1Device(fake, region({ sparse, flags: 3 }), true);
    expect(unmappable.mapped).toBeUndefined();
  });

  it('maps the pages of an access, if it may not keep them: a driver that allows it may have no other way', () => {
    const sparse = [{ offset: 8192, size: 8192 }];
    const mapped: [at: number, size: number][] = [];
    fake.withMap = (place, at, size, use) => {
      mapped.push([at, size]);
      use(fake.map(place, at, size));
    };
    fake.answer = (request) => {
      throw new Error(`a trapped ${request}`);
    };
    const device = new PortV1Device(fake, region({ sparse }), false);
    const into = new Uint8Array(100);
    device.read(8192 + 4090, into);
    expect(into).toBeBytes(noise(65_536).subarray(16_378, 16_478));
    device.write(16_380, Uint8Array.of(1, 2, 3, 4));
    expect([...fake.memory.subarray(20_476, 20_480)]).toEqual([1, 2, 3, 4]);
    expect(mapped).toEqual([
      [8192, 8192],
      [12_288, 4096],
    ]);
    // what is not in the data section, or not to be mapped, is asked for
    for (const at of [0, 8100, 16_381]) expect(() => device.read(at, new Uint8Array(100))).toThrow('a trapped');
    for (const other of [region({ sparse, flags: 3 }), region({ sparse: [{ offset: 8193, size: 100 }] }), region()]) {
      expect(() => new PortV1Device(fake, other, false).read(8193, into)).toThrow('a trapped');
    }
  });

  it('maps whole pages of the carrier, and none by smaller ones', () => {
    fake.pageSize = 16_384;
    const mapped: [at: number, size: number][] = [];
    fake.withMap = (place, at, size, use) => {
      mapped.push([at, size]);
      use(fake.map(place, at, size));
    };
    const large = { size: 61_440, sparse: [{ offset: 16_384, size: 32_768 }] };
    const into = new Uint8Array(100);
    new PortV1Device(fake, region(large), false).read(36_384, into);
    expect(into).toBeBytes(noise(65_536).subarray(40_480, 40_580));
    expect(mapped).toEqual([[32_768, 16_384]]);
    for (const sparse of [[{ offset: 8192, size: 16_384 }], [{ offset: 16_384, size: 8192 }]]) {
      expect(new PortV1Device(fake, region({ ...large, sparse }), true).mapped).toBeUndefined();
    }
  });

  it('maps nothing unasked, and nothing where the carrier cannot', () => {
    const sparse = [{ offset: 8192, size: 8192 }];
    expect(new PortV1Device(fake, region({ sparse }), false).mapped).toBeUndefined();
    const mapless: VfioPort = Object.assign(Object.create(fake), { map: undefined });
    expect(new PortV1Device(mapless, region({ sparse }), true).mapped).toBeUndefined();
  });

  it('accesses mapped memory itself, and asks the driver for what does not all lie there', () => {
    const sparse = [{ offset: 8192, size: 8192 }];
    const device = new PortV1Device(fake, region({ sparse }), true);
    for (const [offset, length, asked] of [
      [8192, 8192, false],
      [16_380, 4, false],
      [16_380, 5, true],
      [8191, 2, true],
    ] as const) {
      fake.asked.length = 0;
      const into = new Uint8Array(length);
      device.read(offset, into);
      expect(into, `read at ${offset}`).toBeBytes(fake.memory.subarray(4096 + offset, 4096 + offset + length));
      device.write(offset, noise(length, 5));
      expect(fake.memory.subarray(4096 + offset, 4096 + offset + length)).toBeBytes(noise(length, 5));
      expect(fake.asked).toEqual(asked ? ['pread64', 'pwrite64'] : []);
    }
  });

  it('asks again for what a driver has not given or taken at once', () => {
    class Short extends BytePort {
      override read(place: RegionPlace, at: number, into: Uint8Array): number {
        return super.read(place, at, into.subarray(0, 300));
      }
      override write(place: RegionPlace, at: number, from: Uint8Array): number {
        return super.write(place, at, from.subarray(0, 300));
      }
    }
    const short = new Short(noise(65_536).slice());
    const device = new PortV1Device(short, region(), false);
    const into = new Uint8Array(1000);
    device.read(4096, into);
    expect(into).toBeBytes(noise(65_536).subarray(8192, 9192));
    device.write(4096, noise(1000, 5));
    expect(short.memory.subarray(8192, 9192)).toBeBytes(noise(1000, 5));
    expect(short.asked).toEqual([...Array(4).fill('pread64'), ...Array(4).fill('pwrite64')]);
  });

  it('believes no driver that it has moved more than was asked for', () => {
    const generous: VfioPort = Object.assign(Object.create(fake), { read: () => 5 });
    const device = new PortV1Device(generous, region(), false);
    expect(thrownBy(() => device.read(0, new Uint8Array(4)))).toMatchObject({ code: 'ERR_DEVICE', errno: 'EIO' });
  });

  it('names what the driver answers as the core knows it, and hands on the rest', () => {
    const device = new PortV1Device(fake, region(), false);
    const readWith = (error: Error): unknown => {
      fake.answer = () => {
        throw error;
      };
      try {
        return device.read(0, new Uint8Array(4));
      } catch (thrown) {
        return thrown;
      }
    };
    expect(readWith(failed('EAGAIN'))).toMatchObject({ code: 'ERR_NO_DATA_YET', errno: 'EAGAIN', syscall: 'ioctl' });
    for (const error of [
      new TypeError('a bug'),
      new ShimError('ERR_SYSCALL', 'without an errno'),
      new ShimError('ERR_ACCESS', 'not the answer of a driver', { errno: 'EIO' }),
    ]) {
      expect(readWith(error)).toBe(error);
    }
  });

  it('takes the first part that lies in the region, to its end at most', () => {
    const sparse = [
      { offset: 12_288, size: 8193 },
      { offset: 12_288, size: 8192 },
      { offset: 8192, size: 4096 },
    ];
    expect(new PortV1Device(fake, region({ sparse }), true).dataSection).toEqual({ offset: 12_288, size: 8192 });
  });

  it('takes no part that lies beyond the region', () => {
    const sparse = [
      { offset: 8192, size: 65_536 },
      { offset: 20_480, size: 4096 },
      { offset: 0, size: 0 },
    ];
    const device = new PortV1Device(fake, region({ sparse }), true);
    expect([device.mapped, device.dataSection.offset]).toEqual([undefined, 32]);
  });

  it('needs room for data', () => {
    expect(thrownBy(() => new PortV1Device(fake, region({ size: 32 }), false))).toMatchObject({
      code: 'ERR_DEVICE',
      errno: 'EIO',
    });
    expect(new PortV1Device(fake, region({ size: 33 }), false).dataSection).toEqual({ offset: 32, size: 1 });
    expect(new PortV1Device(fake, region({ size: 4097 }), false).dataSection).toEqual({ offset: 32, size: 4065 });
  });

  it('is reset by VFIO_DEVICE_RESET', () => {
    const device = new PortV1Device(fake, region(), false);
    expect(thrownBy(() => device.reset())).toMatchObject({ code: 'ERR_DEVICE', errno: 'ENOTTY' });
    fake.answer = (request) => request === 'VFIO_DEVICE_RESET';
    device.reset();
  });
});
