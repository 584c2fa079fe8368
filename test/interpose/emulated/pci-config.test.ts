import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DOORBELL_AT, readMsixBar, writeMsixBar } from '../../../src/interpose/emulated/msix-bar.ts';
import { KEPT_SIZE, PciConfig } from '../../../src/interpose/emulated/pci-config.ts';
import { DRIVERS } from '../../../src/sim/drivers.ts';
import { barSize, configSpace } from '../../../src/sim/pci.ts';
import { expAt, MSI_VECTORS, MSIX_VECTORS, PBA_AT, msiAt, msixAt, pmAt } from '../../../src/sim/pci-capabilities.ts';
import { parseSpec } from '../../../src/sim/spec.ts';

function configOf(spec: string): { bytes: Uint8Array; view: DataView; config: PciConfig; bar: number } {
  const parsed = parseSpec(spec);
  const bytes = new Uint8Array(4096);
  const config = new PciConfig(bytes, configSpace(parsed), new Uint8Array(KEPT_SIZE));
  config.begin();
  return { bytes, view: new DataView(bytes.buffer), config, bar: barSize(parsed) };
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, n) => from + n);
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
      expect(view.getUint32(0x18, true), 'the BAR of MSI-X').toBe(0xffff_f000);
      for (const at of [...(is64 ? [] : [0x14]), 0x1c, 0x20, 0x24])
        expect(view.getUint32(at, true), `BAR at ${at}`).toBe(0);
      expect(view.getUint32(0x30, true)).toBe(0);
    },
  );

  it('is shown as it is, whatever has changed it, and whatever its reader did to what is shown', () => {
    const step = fc.oneof(
      fc
        .tuple(fc.uint8Array({ minLength: 1, maxLength: 64 }), fc.nat(192))
        .map(([from, offset]) => ({ does: (config: PciConfig) => void config.write(offset, from) })),
      fc.constantFrom<{ does: (config: PciConfig) => void }>(
        { does: (config) => config.begin() },
        { does: (config) => config.enable() },
        { does: (config) => config.wasReset() },
        { does: (config) => config.setMsixEnabled(true) },
        { does: (config) => config.setMsixEnabled(false) },
      ),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 20 }), fc.uint8Array({ maxLength: 256 }), (steps, scribble) => {
        const [bytes, kept, shown] = [new Uint8Array(256), new Uint8Array(KEPT_SIZE), new Uint8Array(256)];
        const space = configSpace(parseSpec('qat'));
        const config = new PciConfig(bytes, space, kept, shown);
        for (const { does } of steps) {
          shown.set(scribble);
          does(config);
          expect(shown).toEqual(bytes);
        }
        shown.set(scribble);
        expect(new PciConfig(bytes, space, kept, shown).size).toBe(256); // a successor
        expect(shown).toEqual(bytes);
      }),
    );
  });

  it('lets only what can be written be written, one byte or many', () => {
    const { bytes, config } = configOf('qat');
    const before = bytes.slice(0, 256);
    config.write(0, ONES);
    const changed = Array.from(before.keys()).filter((at) => bytes[at] !== before[at]);
    const header = [0x04, 0x05, 0x0c, 0x0d, 0x11 + 1, 0x13, 0x19, 0x1a, 0x1b, 0x3c];
    const power = [0x44];
    const msi = [0x4a, ...range(0x4c, 0x54), 0x54, 0x55, 0x58];
    const express = [0x74, 0x75, 0x94];
    expect(changed).toEqual([...header, ...power, ...msi, ...express]);
    expect([bytes[4], bytes[5]]).toEqual([0x46, 0x05]);
    config.write(0, new Uint8Array(256));
    for (const at of [...power, ...msi, 0x74, 0x75]) expect(bytes[at], `byte ${at}`).toBe(at === 0x44 ? 8 : 0);
    config.begin();
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

  it('has STATUS as it is, whose bits vfio-pci lets nobody clear', () => {
    const { view, config } = configOf('qat');
    view.setUint16(0x06, 0xf910, true);
    config.write(0x06, Uint8Array.of(0xff, 0xff));
    config.write(0x06, Uint8Array.of(0, 0));
    expect(view.getUint16(0x06, true)).toBe(0xf910);
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

/** The capabilities of a configuration space, by their IDs: where they are, in the order of the list (PCI Local Bus Specification 3.0: 6.7). */
function capabilities(view: DataView): [id: number, at: number][] {
  const found: [number, number][] = [];
  if ((view.getUint16(0x06, true) & 0x10) === 0) return found;
  for (let at = view.getUint8(0x34); at !== 0 && found.length < 48; at = view.getUint8(at + 1)) {
    found.push([view.getUint8(at), at]);
  }
  return found;
}

const word = (config: PciConfig, at: number, value: number): boolean =>
  config.write(at, new Uint8Array(Uint16Array.of(value).buffer));

describe('capabilities', () => {
  it.each(DRIVERS)('%s: has power management, MSI, MSI-X and PCI Express, one behind the other', (driver) => {
    const { view } = configOf(driver);
    expect(capabilities(view)).toEqual([
      [0x01, pmAt],
      [0x05, msiAt],
      [0x11, msixAt],
      [0x10, expAt],
    ]);
    expect([pmAt, msiAt, msixAt, expAt]).toEqual([0x40, 0x48, 0x60, 0x6c]);
    expect(1 << ((view.getUint16(msiAt + 2, true) >> 1) & 7)).toBe(MSI_VECTORS);
    expect((view.getUint16(msixAt + 2, true) & 0x7ff) + 1).toBe(MSIX_VECTORS);
    expect([view.getUint32(msixAt + 4, true), view.getUint32(msixAt + 8, true)]).toEqual([0x002, 0x802]);
  });

  it('power management: D0 and D3hot, and no other state', () => {
    const { view, config } = configOf('qat');
    const states = [3, 1, 2, 0, 0xfffd, 0xffff, 0xfffc].map((value) => {
      expect(word(config, pmAt + 4, value)).toBe(false);
      return view.getUint16(pmAt + 4, true);
    });
    expect(states).toEqual([0xb, 0xb, 0xb, 0x8, 0x8, 0xb, 0x8]);
    config.write(pmAt + 5, Uint8Array.of(0xff));
    expect(view.getUint16(pmAt + 4, true)).toBe(0x8);
  });

  it('MSI: the user has the address and the data, and of the flags no more than SET_IRQS gave', () => {
    const { view, config } = configOf('qat');
    const flags = (value: number): number => {
      word(config, msiAt + 2, value);
      return view.getUint16(msiAt + 2, true);
    };
    expect(view.getUint16(msiAt + 2, true)).toBe(0x0184);
    expect(flags(0x01f5)).toBe(0x0184);
    config.setMsiEnabled(3);
    expect(view.getUint16(msiAt + 2, true)).toBe(0x0184);
    expect([0x0185, 0x0195, 0x01a5, 0x01b5, 0x01f5].map(flags)).toEqual([0x0185, 0x0195, 0x01a5, 0x01a5, 0x01a5]);
    config.setMsiEnabled(1);
    expect(flags(0x0195)).toBe(0x0185);
    config.setMsiEnabled(0);
    expect(view.getUint16(msiAt + 2, true)).toBe(0x0185);
    expect(flags(0x0185)).toBe(0x0184);
    config.write(msiAt + 4, ONES.subarray(0, 20));
    expect(view.getBigUint64(msiAt + 4, true)).toBe(2n ** 64n - 1n);
    expect([0x0c, 0x0e, 0x10, 0x12, 0x14].map((at) => view.getUint16(msiAt + at, true))).toEqual([
      0xffff, 0, 0xf, 0, 0,
    ]);
  });

  it('MSI is off for who opens the device next', () => {
    const { view, config } = configOf('qat');
    config.setMsiEnabled(4);
    config.begin();
    word(config, msiAt + 2, 0x01a5);
    expect(view.getUint16(msiAt + 2, true)).toBe(0x0184);
  });

  it('MSI-X: what is written is dropped, and SET_IRQS alone enables it', () => {
    const { view, config } = configOf('qat');
    config.write(msixAt, ONES.subarray(0, 12));
    expect(view.getUint16(msixAt + 2, true)).toBe(0x0003);
    config.setMsixEnabled(true);
    expect(view.getUint16(msixAt + 2, true)).toBe(0x8003);
    word(config, msixAt + 2, 0);
    expect(view.getUint16(msixAt + 2, true)).toBe(0x8003);
    config.setMsixEnabled(false);
    expect(view.getUint16(msixAt + 2, true)).toBe(0x0003);
  });

  it.each([
    ['flr', 0x1000_0000, 8],
    ['pm', 0, 0],
    ['bus', 0, 8],
  ])(
    'reset-method=%s: says how the function can be reset, and is reset by nothing else',
    (method, flr, noSoftReset) => {
      const { view, config } = configOf(`qat,reset-method=${method}`);
      expect(view.getUint32(expAt + 4, true) & 0x1000_0000).toBe(flr);
      expect(view.getUint16(pmAt + 4, true)).toBe(noSoftReset);
      expect(word(config, expAt + 8, 0xa810)).toBe(flr !== 0);
      expect(view.getUint16(expAt + 8, true)).toBe(0x2810);
      const reset = [3, 1, 2, 3, 0].map((state) => word(config, pmAt + 4, state));
      expect(reset).toEqual([false, false, false, false, noSoftReset === 0]);
      config.wasReset();
      expect(view.getUint16(pmAt + 4, true)).toBe(noSoftReset);
      expect(word(config, pmAt + 4, 0)).toBe(false);
    },
  );

  it('begins nothing without power', () => {
    const { config } = configOf('qat');
    word(config, 0x04, 6);
    expect([config.isInD0, config.isBusMaster]).toEqual([true, true]);
    word(config, pmAt + 4, 3);
    expect([config.isInD0, config.isBusMaster]).toEqual([false, false]);
    config.wasReset();
    expect([config.isInD0, config.isBusMaster]).toEqual([true, true]);
  });

  it('is all there after a reset but the power state and the mask of MSI', () => {
    const { bytes, view, config } = configOf('qat,config=4K');
    config.setMsiEnabled(4);
    config.setMsixEnabled(true);
    config.write(0, new Uint8Array(4096).fill(0xff));
    const before = bytes.slice();
    const changed = new DataView(before.buffer);
    expect([changed.getUint8(pmAt + 4), changed.getUint32(msiAt + 0x10, true)]).toEqual([0x0b, 0x0f]);
    changed.setUint8(pmAt + 4, 0x08);
    changed.setUint32(msiAt + 0x10, 0, true);
    config.wasReset();
    expect(bytes).toBeBytes(before);
    expect(view.getUint16(msiAt + 2, true)).toBe(0x01af);
  });

  it('config=4096: has a serial number behind the first 256 bytes, which nobody can write', () => {
    const { bytes, view, config } = configOf('qat,config=4096');
    expect(config.size).toBe(4096);
    const first = configOf('qat');
    expect(bytes.subarray(0, 256)).toBeBytes(first.bytes.subarray(0, 256));
    expect([0x100, 0x104, 0x108].map((at) => view.getUint32(at, true))).toEqual([
      0x0001_0003, 0xff00_4941, 0x0080_86ff,
    ]);
    const extended = bytes.slice(256);
    config.write(256, new Uint8Array(3840).fill(0xff));
    expect(bytes.subarray(256)).toBeBytes(extended);
    expect(first.config.size).toBe(256);
  });

  it('PCI Express: the FLR bit resets, and reads as 0', () => {
    const { view, config } = configOf('qat');
    expect(view.getUint32(expAt + 4, true) & 0x1000_0000, 'DEVCAP: FLR').not.toBe(0);
    expect(word(config, expAt + 8, 0x2810)).toBe(false);
    expect(word(config, expAt + 8, 0xd000)).toBe(true);
    expect(view.getUint16(expAt + 8, true)).toBe(0x5000);
    expect(config.write(expAt + 9, Uint8Array.of(0x80))).toBe(true);
    expect(config.write(expAt + 8, Uint8Array.of(0xff))).toBe(false);
    expect(view.getUint16(expAt + 8, true)).toBe(0x00ff);
  });
});

describe('the BAR of MSI-X', () => {
  it('has ones where the table is, then the pending bits and the doorbell, and zeros between them', () => {
    const whole = new Uint8Array(4096).fill(0xff, 0, 16 * MSIX_VECTORS);
    const irqs = { pendingVectors: 0b1010, raised: 0x1_1234_5678, ring: () => {} };
    whole[PBA_AT] = 0b1010;
    whole.set([0x78, 0x56, 0x34, 0x12], DOORBELL_AT);
    fc.assert(
      fc.property(fc.nat(4095), fc.integer({ min: 1, max: 200 }), (offset, length) => {
        const into = new Uint8Array(Math.min(length, 4096 - offset)).fill(0x55);
        readMsixBar(irqs, offset, into);
        expect(into).toBeBytes(whole.subarray(offset, offset + into.length));
      }),
    );
  });

  it('rings for what is written to the doorbell as a whole, and for nothing else', () => {
    const rung: number[] = [];
    const irqs = { pendingVectors: 0, raised: 0, ring: (vectors: number) => void rung.push(vectors) };
    for (const offset of [0, PBA_AT, DOORBELL_AT - 4, DOORBELL_AT - 1, DOORBELL_AT + 1, DOORBELL_AT + 4]) {
      writeMsixBar(irqs, offset, Uint8Array.of(1, 2, 3, 4));
    }
    for (const length of [1, 2, 8]) writeMsixBar(irqs, DOORBELL_AT, new Uint8Array(length).fill(1));
    expect(rung).toEqual([]);
    writeMsixBar(irqs, DOORBELL_AT, Uint8Array.of(5, 0, 0, 0x80));
    expect(rung).toEqual([0x8000_0005]);
  });
});
