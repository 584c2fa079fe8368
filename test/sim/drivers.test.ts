import { describe, expect, test } from 'vitest';
import { createSim, simMemorySizes } from '../../src/sim/create.ts';
import {
  DRIVERS,
  driverSpeaking,
  driversWith,
  isDriver,
  kindOf,
  optionsOf,
  type DriverName,
  type SimSpec,
} from '../../src/sim/drivers.ts';
import { pciConfig } from '../../src/sim/pci.ts';
import { formatSpec, parseSpec, smallSpec } from '../../src/sim/spec.ts';
import { specHelp } from '../../src/sim/spec-help.ts';

/** One of these is another value than the default of any option, unless it takes one value only, as the size of mtty does. */
const VALUES = ['2', '1', '8K', '64K', 'read@3:EIO!', 'SAVE@2:state', '7.1', 'off', '0x2000000+16M', '4K', 'pm'];

/** A SPEC with this option, and what it is not taken without. */
const specWith = (driver: DriverName, part: string): string =>
  [driver, ...(part.startsWith('dma-') ? ['dma=2'] : []), part].join(',');

function otherThanDefault(driver: DriverName, option: string): string | undefined {
  // what is read lies elsewhere than what is written to
  const values = option === 'dma-from' ? ['0x4000000+16M'] : VALUES;
  return values
    .map((value) => `${option}=${value}`)
    .find((part) => {
      try {
        return formatSpec(parseSpec(specWith(driver, part))).includes(part);
      } catch {
        return false;
      }
    });
}

const everyOption = [...new Set(DRIVERS.flatMap((driver) => Object.keys(optionsOf(driver))))];

/** The line of the help that begins with a word. */
const helpFor = (word: string): string | undefined =>
  specHelp()
    .split('\n')
    .find((line) => line.startsWith(`  ${word} `));

function expectCreated(spec: SimSpec): void {
  const sim = createSim(spec);
  expect(sim.protocol).toBe(kindOf(spec).protocol);
  expect(sim.bar).toHaveLength(spec.size);
}

describe.each(DRIVERS)('the driver %s', (driver) => {
  const kind = kindOf({ driver });

  test('has a default SPEC, which is its name, and a small one; of either a device can be made', () => {
    for (const spec of [parseSpec(driver), smallSpec(driver)]) {
      expect(spec.driver).toBe(driver);
      expect(parseSpec(formatSpec(spec))).toEqual(spec);
      expectCreated(spec);
    }
    expect(formatSpec(parseSpec(driver))).toBe(driver);
    expect(smallSpec(driver).size).toBeLessThanOrEqual(16 * 1024);
  });

  test('has options that a SPEC takes, one or all, and gives back', () => {
    const options = Object.keys(optionsOf(driver));
    const parts = options.flatMap((option) => otherThanDefault(driver, option) ?? []);
    expect(parts.length).toBeGreaterThanOrEqual(options.length - 1);
    for (const text of [...parts.map((part) => specWith(driver, part)), [driver, ...parts].join(',')]) {
      expect(formatSpec(parseSpec(text))).toBe(text);
      expectCreated(parseSpec(text));
    }
  });

  test('has a data section if it has a migration region, and none if it speaks v2', () => {
    expect(simMemorySizes(parseSpec(driver)).section > 0).toBe(kind.protocol !== 'v2');
  });

  test('is in the help, with its protocol and what it is like', () => {
    expect(helpFor(driver)).toBe(
      `  ${driver.padEnd(Math.max(...DRIVERS.map(({ length }) => length)))}  ${kind.protocol}, ${kind.summary}`,
    );
  });
});

describe('the simulated drivers', () => {
  test.each(everyOption)('have the option %s with one meaning, and the help says whose it is', (name) => {
    const drivers = driversWith(name);
    const meanings = new Set(drivers.map((driver) => optionsOf(driver)[name]?.meaning));
    expect(meanings.size).toBe(1);
    const whose = drivers.length === DRIVERS.length ? '' : `${drivers.join(', ')}: `;
    expect(helpFor(name)).toContain(`  ${whose}${[...meanings][0]}`);
  });

  test('tell of the default in the help where there is one for all', () => {
    expect(helpFor('compat')).toMatch(/\(default 1\)$/);
    expect(helpFor('section')).toMatch(/\(default 1M\)$/);
    expect(helpFor('size')).not.toMatch(/default/);
    expect(helpFor('fault')).not.toMatch(/default/);
  });

  test('have PCI ids that tell them apart', () => {
    const ids = DRIVERS.map((driver) => Buffer.from(pciConfig(parseSpec(driver))).readUInt32LE(0));
    expect(new Set(ids).size).toBe(DRIVERS.length);
  });

  test('are known by name, and a protocol is spoken by the first in the table that speaks it', () => {
    expect(DRIVERS.every(isDriver)).toBe(true);
    expect(['', 'toString', '__proto__', 'Qat'].some(isDriver)).toBe(false);
    expect((['v1', 'v2'] as const).map(driverSpeaking)).toEqual(['vendor-v1', 'qat']);
  });
});
