import { beforeEach, describe, expect, it } from 'vitest';
import type { RegionInfo } from '../../../src/vfio/client/device-info.ts';
import { PortV1Device } from '../../../src/vfio/client/port-v1-device.ts';
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
      dataSection: { offset: 4096, size: 16_384 },
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

  it('takes no part that lies beyond the region', () => {
    const sparse = [
      { offset: 8192, size: 65_536 },
      { offset: 20_480, size: 4096 },
      { offset: 0, size: 0 },
    ];
    const device = new PortV1Device(fake, region({ sparse }), true);
    expect([device.mapped, device.dataSection.offset]).toEqual([undefined, 4096]);
  });

  it('needs room for data', () => {
    expect(thrownBy(() => new PortV1Device(fake, region({ size: 32 }), false)).code).toBe('ERR_DEVICE');
    expect(new PortV1Device(fake, region({ size: 64 }), false).dataSection).toEqual({
      offset: 32,
      size: 32,
    });
  });

  it('is reset by VFIO_DEVICE_RESET', () => {
    const device = new PortV1Device(fake, region(), false);
    expect(thrownBy(() => device.reset())).toMatchObject({ code: 'ERR_DEVICE', errno: 'ENOTTY' });
    fake.answer = (request) => request === 'VFIO_DEVICE_RESET';
    device.reset();
  });
});
