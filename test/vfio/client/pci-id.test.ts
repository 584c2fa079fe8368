import { describe, expect, it } from 'vitest';
import { pciId } from '../../../src/vfio/client/pci-id.ts';
import { BytePort, failed } from '../../support/byte-port.ts';

describe('pciId', () => {
  it('is read from the configuration space', () => {
    const config = new Uint8Array(256);
    const view = new DataView(config.buffer);
    [0x8086, 0x4941].forEach((id, n) => view.setUint16(2 * n, id, true));
    [0x1234, 0x000f].forEach((id, n) => view.setUint16(0x2c + 2 * n, id, true));
    const fake = new BytePort(config);
    const at = { type: undefined, sparse: undefined, flags: 3, index: 7, offset: 0n };
    expect(pciId(fake, [{ ...at, size: 256 }])).toEqual({ id: '8086:4941', subsystem: '1234:000f' });
    expect(pciId(fake, [{ ...at, size: 63 }])).toBeUndefined();
    expect(pciId(fake, [{ ...at, size: 256, index: 6 }])).toBeUndefined();
    expect(pciId(fake, [{ ...at, size: 256, offset: 240n }])).toBeUndefined();
    expect(pciId(fake, [{ ...at, size: 64 }])?.id).toBe('8086:4941');
    expect(pciId(fake, [])).toBeUndefined();
  });

  it('is unknown if the device does not give it, and a bug stays one', () => {
    const fake = new BytePort(new Uint8Array(64));
    const config = { type: undefined, sparse: undefined, flags: 3, index: 7, offset: 0n, size: 64 };
    const failsWith = (error: Error): void => {
      fake.answer = () => {
        throw error;
      };
    };
    failsWith(failed('EIO'));
    expect(pciId(fake, [config])).toBeUndefined();
    failsWith(new TypeError('a bug'));
    expect(() => pciId(fake, [config])).toThrow('a bug');
  });
});
