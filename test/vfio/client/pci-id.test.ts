import { describe, expect, it } from 'vitest';
import { pciId } from '../../../src/vfio/client/pci-id.ts';
import { BytePort } from '../../support/byte-port.ts';

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
  });
});
