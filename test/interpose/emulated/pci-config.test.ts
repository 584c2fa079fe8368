import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PciConfig } from '../../../src/interpose/emulated/pci-config.ts';
import { DRIVERS } from '../../../src/sim/drivers.ts';
import { barSize, pciConfig, pciConfigWritable } from '../../../src/sim/pci.ts';
import { parseSpec } from '../../../src/sim/spec.ts';

function configOf(spec: string): { bytes: Uint8Array; view: DataView; config: PciConfig; bar: number } {
  const parsed = parseSpec(spec);
  const bytes = new Uint8Array(4096);
  const config = new PciConfig(bytes, { initial: pciConfig(parsed), writable: pciConfigWritable(parsed) });
  config.begin();
  return { bytes, view: new DataView(bytes.buffer), config, bar: barSize(parsed) };
}

const ONES = new Uint8Array(256).fill(0xff);

describe('config space', () => {
  it.each([...DRIVERS, 'qat,size=1M', 'qat,size=256M', 'qat,size=512M', 'mlx5,size=8G'])(
    '%s: its BARs size as they are, and there is no ROM',
    (spec) => {
      const { view, config, bar } = configOf(spec);
      const flags = view.getUint32(0x10, true) & 0xf;
      config.write(0x10, ONES.subarray(0, 24));
      config.write(0x30, ONES.subarray(0, 4));
      const is64 = (flags & 4) !== 0;
      const sized = is64 ? view.getBigUint64(0x10, true) : 0xffff_ffff_0000_0000n | BigInt(view.getUint32(0x10, true));
      expect(BigInt.asUintN(64, -(sized & ~0xfn))).toBe(BigInt(bar));
      expect(sized & 0xfn).toBe(BigInt(flags));
      for (let at = is64 ? 0x18 : 0x14; at < 0x28; at += 4) expect(view.getUint32(at, true), `BAR at ${at}`).toBe(0);
      expect(view.getUint32(0x30, true)).toBe(0);
    },
  );

  it('lets only what can be written be written, one byte or many', () => {
    const { bytes, config } = configOf('qat');
    const before = bytes.slice(0, 256);
    config.write(0, ONES);
    const changed = Array.from(before.keys()).filter((at) => bytes[at] !== before[at]);
    expect(changed).toEqual([0x04, 0x05, 0x0c, 0x0d, 0x11 + 1, 0x13, 0x3c]);
    expect([bytes[4], bytes[5]]).toEqual([0x46, 0x05]);
    config.write(0, new Uint8Array(256));
    expect(bytes.subarray(0, 256)).toBeBytes(before);
  });

  it('is the same however a write is cut', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 64 }), fc.nat(192), (from, offset) => {
        const [whole, cut] = [configOf('mlx5,size=1G'), configOf('mlx5,size=1G')];
        whole.config.write(offset, from);
        for (const [n, value] of from.entries()) cut.config.write(offset + n, Uint8Array.of(value));
        expect(cut.bytes).toBeBytes(whole.bytes);
      }),
    );
  });

  it('clears bits of STATUS that are written', () => {
    const { view, config } = configOf('qat');
    view.setUint16(0x06, 0xf910, true);
    config.write(0x06, Uint8Array.of(0xff, 0x01));
    expect(view.getUint16(0x06, true)).toBe(0xf810);
    config.write(0x06, Uint8Array.of(0xff, 0xff));
    expect(view.getUint16(0x06, true)).toBe(0x0010);
  });

  it('knows whether the device may do DMA, and forgets it with its user', () => {
    const { config } = configOf('qat');
    expect(config.isBusMaster).toBe(false);
    config.write(0x04, Uint8Array.of(4));
    expect(config.isBusMaster).toBe(true);
    config.begin();
    expect(config.isBusMaster).toBe(false);
  });
});
