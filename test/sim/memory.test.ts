import { describe, expect, test } from 'vitest';
import { createSim } from '../../src/sim/create.ts';
import { storeOf } from '../../src/sim/byte-store.ts';
import { fillPattern, SIM_STATE_SIZE, type SimMemory } from '../../src/sim/memory.ts';
import { barSize, pciConfig } from '../../src/sim/pci.ts';
import { DRIVERS } from '../../src/sim/drivers.ts';
import { parseSpec } from '../../src/sim/spec.ts';
import { V2 } from '../../src/v2/states.ts';
import { v1Sim, v2Sim } from '../support/sims.ts';

function pattern(size: number, seed: number): Uint8Array {
  const memory = new Uint8Array(size);
  fillPattern(storeOf(memory), seed);
  return memory;
}

/** Bytes as something by which a Set knows them. */
function key(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1');
}

describe('fillPattern', () => {
  test('makes no two pages alike', () => {
    const memory = pattern(4 * 2 ** 20, 7);
    const pages = Array.from({ length: 1024 }, (_, n) => key(memory.subarray(n * 4096, (n + 1) * 4096)));
    expect(new Set(pages).size).toBe(1024);
  });

  test('makes no two seeds alike', () => {
    const constant = 0x9e3779b9; // where the generator's own arithmetic could make two seeds meet
    const seeds = [1, 2, 3, 2 ** 31, 2 ** 32 - 1, constant, constant ^ 1, (constant ^ 2) >>> 0].map(
      (seed) => seed >>> 0,
    );
    expect(new Set(seeds).size).toBe(seeds.length);
    expect(new Set(seeds.map((seed) => key(pattern(65_536, seed)))).size).toBe(seeds.length);
  });

  test('is the same for the same seed, a prefix for a smaller memory, and nothing for seed 0', () => {
    expect(pattern(100_000, 9).subarray(0, 70_001)).toBeBytes(pattern(70_001, 9));
    expect(pattern(4096, 0)).toBeBytes(new Uint8Array(4096));
  });
});

describe('createSim', () => {
  test.each(DRIVERS)('%s: the memory begins with the pattern of the seed', (driver) => {
    const { bar } = createSim(parseSpec(`${driver},seed=5`));
    expect(bar).toBeBytes(pattern(bar.length, 5));
  });

  test('needs memory for what it keeps, and a data section, if its driver says so', () => {
    const sizes = ({ bar, section, kept }: SimMemory): number[] => [bar.length, section.length, kept.length];
    expect(sizes(v1Sim('vendor-v1,size=10K,section=8K').memory)).toEqual([10_240, 8192, 10_240]);
    expect(sizes(v2Sim('qat,size=10K').memory)).toEqual([10_240, 0, 0]);
  });

  test('keeps everything in the memory given: an object made later goes on where the first one stopped', () => {
    const first = v2Sim('qat,seed=3,fault=read@3:EIO');
    const session = first.device.setState(V2.PRE_COPY);
    session?.read(new Uint8Array(10));
    const second = createSim(first.spec, first.memory);
    if (second.protocol !== 'v2') throw new Error('unreachable');
    expect(second.device.getState()).toBe(V2.PRE_COPY);
    expect(second.device.openSession()?.read(new Uint8Array(100))).toBe(22);
    expect(() => second.device.openSession()?.read(new Uint8Array(1))).toThrow('read number 3 fails with EIO');
    expect(first.memory.state).toHaveLength(SIM_STATE_SIZE);
  });
});

describe('pciConfig', () => {
  test.each([
    ['qat', 65_536],
    ['qat,size=1', 4096],
    ['qat,size=65537', 131_072],
    ['mtty', 4096],
    ['vendor-v1,size=3G', 2 ** 32],
  ])('of %s has a BAR0 of %i bytes', (text, size) => {
    const spec = parseSpec(text);
    expect(barSize(spec)).toBe(size);
    const config = pciConfig(spec);
    expect(config).toHaveLength(256);
    // a 64-bit prefetchable BAR where firmware needs one
    expect(config[0x10]).toBe(size > 2 ** 28 ? 0x0c : 0);
  });
});
