import type { Finding } from '../../src/check/index.ts';
import { inColumns, type Versions } from '../report.ts';
import { titleOf, type Case, type End } from './cases.ts';
import type { Outcome } from './run-case.ts';

const HEAD = `# VMMs

Written by \`npm run vmms\`, which recorded each of these migrations at both ends and judged the VMM as \`vfio-shim check --recording\` does:
by the rules in [check.md](check.md#of-a-vmm). Each QEMU migrated to itself, with a device whose driver speaks its protocol and with one that is bridged.
Devices fail where that is said: the second read or write of their data. What a migration ended as is QEMU's word at the source.
`;

/** The document; without numbers of lines and accesses, it is the same if the same comes out. */
export function render(outcomes: ReadonlyMap<Case, Outcome>, versions: Versions): string {
  const qemus = [...new Set([...outcomes.keys()].map(({ qemu }) => qemu))];
  const parts = qemus.map((qemu) => {
    const own = [...outcomes].filter(([one]) => one.qemu === qemu);
    return `## QEMU ${qemu}\n\n${versions.get(qemu) ?? ''}\n\n${tableOf(own)}\n${findingsOf(own)}`;
  });
  return [HEAD, ...parts].join('\n');
}

function tableOf(outcomes: readonly (readonly [Case, Outcome])[]): string {
  const rows = outcomes.map(([{ driver, what }, { status, source, destination }]) => [
    `${driver}: ${what}`,
    status,
    String(source.findings.length + source.omitted),
    String(destination.findings.length + destination.omitted),
  ]);
  return inColumns(['migration', 'ended as', 'findings, source', 'findings, destination'], rows);
}

/** Each rule that was broken once, with the places. */
function findingsOf(outcomes: readonly (readonly [Case, Outcome])[]): string {
  const found = new Map<string, { finding: Finding; places: Set<string> }>();
  for (const [one, outcome] of outcomes) {
    for (const end of ['source', 'destination'] as const satisfies readonly End[]) {
      for (const finding of outcome[end].findings) {
        const known = found.get(finding.id) ?? { finding, places: new Set<string>() };
        known.places.add(`${titleOf(one)}, ${end}`);
        found.set(finding.id, known);
      }
    }
  }
  if (found.size === 0) return 'It has broken none of the rules.\n';
  return [...found.values()]
    .map(({ finding, places }) => {
      const { id, sentence, source, why } = finding;
      return `- \`${id}\`: ${sentence} Here ${why}.\n  Source: ${source}.\n  In: ${[...places].join('; ')}.\n`;
    })
    .join('');
}
