import { readFileSync } from 'node:fs';
import { licenceOf } from '../scripts/lib/licences.mjs';

/** A part of a package that is somebody's, with its licence. */
export interface Part {
  /** Where it is, below the root; `undefined`: within the programs, which are made of this and others. */
  readonly file: string | undefined;
  readonly name: string;
  readonly version: string;
  readonly licence: string;
  readonly text: string;
}

/** A package of npm as a part. */
export function partOf(directory: string, file?: string): Part {
  return { file, ...licenceOf(directory) };
}

/**
 * All licences in one file, as Debian has it (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/). Each part's is
 * there to the letter, under a name of its own, as it names who has the copyright.
 */
export function copyrightFile(product: string, programs: string, parts: readonly Part[]): string {
  const within = parts.filter(({ file }) => file === undefined);
  const beside = parts.filter(({ file }) => file !== undefined);
  const own = `the authors of ${product}`;
  return [
    { Format: FORMAT, 'Upstream-Name': product },
    { Files: '*', Copyright: own, License: 'Apache-2.0' },
    {
      Files: programs,
      Copyright: [own, ...within.flatMap(copyrightsOf)].join('\n '),
      License: ['Apache-2.0', ...within.map(labelOf)].join(' and '),
      Comment: `made of ${product} and ${within.map(({ name, version }) => `${name} ${version}`).join(', ')}`,
    },
    ...beside.map((part) => ({
      Files: part.file ?? '',
      Copyright: copyrightsOf(part).join('\n '),
      License: labelOf(part),
      Comment: `${part.name} ${part.version}`,
    })),
    { License: `Apache-2.0\n${inField(readFileSync('LICENSE', 'utf8'))}` },
    ...parts.map((part) => ({ License: `${labelOf(part)}\n${inField(part.text)}` })),
  ]
    .map(stanza)
    .join('\n');
}

const FORMAT = 'https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/';

/** What the licence of a part is called in the file. */
function labelOf({ licence, name }: Part): string {
  return `${licence}-${name.replaceAll(/[^a-z0-9.]+/gi, '-').replace(/^-/, '')}`;
}

/** The lines of a licence that say who has the copyright. */
function copyrightsOf({ text, name }: Part): string[] {
  const lines = text
    .split('\n')
    .filter(
      (line) =>
        /^\W*(\(c\) |copyright (\(c\)|©|[A-Z\d]))/i.test(line) &&
        !/copyright (notice|holder|owner|law|interest|license)/i.test(line),
    );
  const found = [...new Set(lines.map((line) => line.replace(/^[^\w(]+/, '').trim()))];
  if (found.length === 0) throw new Error(`${name}: its licence does not say who has the copyright`);
  return found;
}

function stanza(fields: Readonly<Record<string, string>>): string {
  return Object.entries(fields)
    .map(([field, value]) => `${field}: ${value}\n`)
    .join('');
}

/** Lines that go on in a field: each with a space before it, an empty one with a dot. */
function inField(text: string): string {
  return text
    .trim()
    .split('\n')
    .map((line) => (line.trim() === '' ? ' .' : ` ${line.trimEnd()}`))
    .join('\n');
}
