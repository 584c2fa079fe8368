import { expect, it } from 'vitest';
import { deviationLists, rulesFor, vmmRules, type RuleText } from '../../src/check/index.ts';
import { documents } from './documents.ts';

/* The tables of docs/check.md are those of the rules: what is printed if one is not can be put there. */

const text = documents.find(({ path }) => path === 'docs/check.md')?.text ?? '';

/** The cells of a table between two comments. */
function cellsOf(name: string): string[][] {
  const [, part = ''] = text.split(`<!-- ${name} -->`);
  const rows = (part.split('<!-- end -->')[0] ?? '').split('\n').filter((line) => line.startsWith('|'));
  return rows.slice(2).map((row) =>
    row
      .slice(1, -1)
      .split(/(?<!\\)\|/)
      .map((cell) => cell.trim()),
  );
}

function inCells(rules: readonly RuleText[]): string[][] {
  return rules.map(({ id, sentence, source }) => [`\`${id}\``, sentence, source].map(inTable));
}

/** As a cell of a table has it, and the formatter leaves it. */
function inTable(cell: string): string {
  return cell.replaceAll('|', String.raw`\|`);
}

it.each([
  ['v2', inCells(rulesFor('v2'))],
  ['v1', inCells(rulesFor('v1'))],
  ['vmm', inCells(vmmRules)],
  [
    'deviations',
    deviationLists.flatMap(({ name, deviations }) =>
      deviations.map(({ rule, why, source }) => [`\`${name}\``, `\`${rule}\``, why, source].map(inTable)),
    ),
  ],
])('docs/check.md has the rules of %s', (name, cells) => {
  expect(cellsOf(name)).toEqual(cells);
});
