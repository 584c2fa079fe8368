import { expect, it } from 'vitest';
import { createSim } from '../../src/sim/create.ts';
import { DRIVERS, driversWith, kindOf, optionsOf, type DriverName } from '../../src/sim/drivers.ts';
import { parseSize } from '../../src/sim/size.ts';
import { parseSpec } from '../../src/sim/spec.ts';
import { documents } from './documents.ts';

const text = documents.find(({ path }) => path === 'docs/devices.md')?.text ?? '';

/** A table's rows that begin with code, without its backticks. */
function rows(heading: string): string[][] {
  const section = text.slice(text.indexOf(`\n## ${heading}\n`)).split(/\n##? /)[1] ?? '';
  return Array.from(section.matchAll(/^\| (`[\w-]+` .*) \|$/gm), ([, row = '']) =>
    row.split(' | ').map((cell) => cell.replaceAll('`', '').trim()),
  );
}

it('docs/devices.md has a row for each driver, with its protocol, migration flags, default size and summary', () => {
  const found = rows('Drivers').map(([driver = '', protocol = '', size = '', summary = '']) => {
    const [, spoken = '', flags = '0'] = /^(v\d|draft-\d+)(?:.* \((\d+)\))?$/.exec(protocol) ?? [];
    return { driver, protocol: spoken, flags: Number(flags), size: parseSize(size, Error), summary };
  });
  const expected = DRIVERS.map((driver) => {
    const sim = createSim(parseSpec(driver));
    const flags = sim.protocol === 'v2' ? sim.device.migrationFlags : 0;
    return { driver, protocol: sim.protocol, flags, size: parseSpec(driver).size, summary: kindOf({ driver }).summary };
  });
  expect(found).toEqual(expected);
});

it('docs/devices.md has a row for each option, and says which drivers have it', () => {
  const drivers = (cell: string): readonly DriverName[] =>
    DRIVERS.filter(
      (driver) => ['all', kindOf({ driver }).protocol].includes(cell) || cell.split(', ').includes(driver),
    );
  const whose = (cell: string): readonly DriverName[] =>
    cell.startsWith('not ') ? DRIVERS.filter((driver) => !drivers(cell.slice(4)).includes(driver)) : drivers(cell);
  const options = [...new Set(DRIVERS.flatMap((driver) => Object.keys(optionsOf(driver))))];
  const expected = options.map((name) => [name, driversWith(name)]);
  const found = rows('Options').map(([name, cell = '']) => [name, whose(cell)]);
  expect(Object.fromEntries(found)).toEqual(Object.fromEntries(expected));
});

it('docs/devices.md gives SPECs that are accepted', () => {
  const blocks = Array.from(text.matchAll(/^```\n(.*?)^```$/gms), ([, block = '']) => block);
  const specs = blocks.flatMap((block) => block.trim().split('\n')).map((line) => line.split(' ')[0] ?? '');
  expect(specs.length).toBeGreaterThan(5);
  expect(specs.map((spec) => parseSpec(spec).driver)).toEqual(specs.map((spec) => spec.split(',')[0]));
});
