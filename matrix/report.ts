import { spawnSync } from 'node:child_process';
import { missingQemu, qemuBinary } from '../tools/vmm/binaries.ts';
import type { Cell, Outcome } from './cell.ts';
import { QEMUS } from './cells.ts';

/** What each QEMU says of itself, by the name that it has here. */
export type Versions = ReadonlyMap<string, string>;

export function versionsHere(): Versions {
  return new Map(QEMUS.map((version) => [version, missingQemu(version) ?? ownWords(qemuBinary(version))]));
}

function ownWords(path: string): string {
  const { stdout } = spawnSync(path, ['--version'], { encoding: 'utf8' });
  return stdout.split('\n')[0] ?? '';
}

const HEAD = `# The matrix

Written by \`npm run matrix\`, which ran each of these migrations: nothing here was concluded. The devices are
[emulated](devices.md); hardware was not there.

- **works**: QEMU said \`completed\` at both ends, or nothing against \`savevm\` and \`-loadvm\`. The guest runs at the destination, and
  reads on the device what was written there at the source. The hash of all of the device's memory is the same at both ends,
  and the destination's device got as many bytes as the source's gave. Where QEMU traces what the row is about, it did.
- **refused**: QEMU did not do it, for the reason below. If it was live, the guest runs on at the source with all that its device
  had.
- **stalls**: QEMU has sent all of the memory and looked fifty times whether it may stop the VM, and does not. Cancelled, the VM
  runs on.
- **bridged**: the driver speaks the protocol that QEMU does not. \`--round-trip\` is v2 shown as v1 and that as v2.
`;

/** The document. Without dates, hashes and times, it is the same if the same comes out. */
export function render(outcomes: ReadonlyMap<Cell, Outcome>, versions: Versions): string {
  const notes = new Notes();
  const tables = groupBy([...outcomes], ([{ table }]) => table);
  const parts = [...tables].map(([title, entries]) => `## ${title}\n\n${renderTable(entries, notes)}`);
  const programs = [...versions].map(([name, words]) => `- ${name}: ${words}\n`).join('');
  return [HEAD, programs, ...parts, notes.text()].filter((part) => part !== '').join('\n');
}

function renderTable(entries: readonly (readonly [Cell, Outcome])[], notes: Notes): string {
  const rows = [...new Set(entries.map(([{ row }]) => row))];
  const columns = [...new Set(entries.map(([{ column }]) => column))];
  const at = (row: string, column: string): string => {
    const entry = entries.find(([cell]) => cell.row === row && cell.column === column);
    return entry === undefined ? '' : inShort(entry[1], notes);
  };
  const lines = rows.map((row) => [row].concat(columns.map((column) => at(row, column))));
  return inColumns(['', ...columns], lines);
}

/** A table as the formatter leaves it. */
export function inColumns(head: readonly string[], lines: readonly (readonly string[])[]): string {
  const widths = head.map((_, index) => Math.max(3, ...[head, ...lines].map((line) => line[index]?.length ?? 0)));
  const rule = widths.map((width) => '-'.repeat(width));
  const padded = [head, rule, ...lines].map((line) => widths.map((width, index) => (line[index] ?? '').padEnd(width)));
  return padded.map((line) => `| ${line.join(' | ')} |\n`).join('');
}

function inShort(outcome: Outcome, notes: Notes): string {
  return outcome.verdict === 'works' ? 'works' : `${outcome.verdict} (${notes.number(outcome.words)})`;
}

/** What QEMU said, once each. */
class Notes {
  readonly #words: string[] = [];

  number(words: string): number {
    const known = this.#words.indexOf(words);
    return known >= 0 ? known + 1 : this.#words.push(words);
  }

  text(): string {
    if (this.#words.length === 0) return '';
    return `## Why\n\n${this.#words.map((words, index) => `${index + 1}. \`${words.replaceAll('`', "'")}\`\n`).join('')}`;
  }
}

function groupBy<T>(items: readonly T[], key: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) groups.set(key(item), [...(groups.get(key(item)) ?? []), item]);
  return groups;
}
