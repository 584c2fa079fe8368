import { expect, it } from 'vitest';
import { DRIVERS, parseSpec, specHelp } from '../../src/sim/index.ts';
import { documents } from './documents.ts';

const text = documents.find(({ path }) => path === 'docs/devices.md')?.text ?? '';

/** First cells of a table's rows that are code. */
function firstCells(heading: string): string[] {
  const section = text.slice(text.indexOf(`\n## ${heading}\n`)).split(/\n##? /)[1] ?? '';
  return Array.from(section.matchAll(/^\| `([\w-]+)`/gm), ([, cell = '']) => cell);
}

it('docs/devices.md has a row for each driver and each option', () => {
  const options = Array.from(specHelp().matchAll(/^ {2}(\w+) /gm), ([, option = '']) => option);
  expect(firstCells('Drivers').toSorted()).toEqual(DRIVERS.toSorted());
  expect(firstCells('Options').toSorted()).toEqual(options.toSorted());
});

it('docs/devices.md gives SPECs that are accepted', () => {
  const blocks = Array.from(text.matchAll(/^```\n(.*?)^```$/gms), ([, block = '']) => block);
  const specs = blocks.flatMap((block) => block.trim().split('\n')).map((line) => line.split(' ')[0] ?? '');
  expect(specs.length).toBeGreaterThan(5);
  expect(specs.map((spec) => parseSpec(spec).driver)).toEqual(specs.map((spec) => spec.split(',')[0]));
});
