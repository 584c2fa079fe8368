import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { fetchQemu, isToBeFetched } from '../../tools/vmm/binaries.ts';
import { versionsHere } from '../report.ts';
import { inWords, titleOf, type Case, type Decision, type End } from './case.ts';
import { cases } from './cases.ts';
import { decide } from './decide.ts';
import { render, surprises } from './report.ts';

const DOCUMENT = fileURLToPath(new URL('../../docs/decisions.md', import.meta.url));

const usage = `npm run decisions -- [--only TEXT]

Lets QEMU 7.2 and 10.0 decide when to stop a VM, with devices of their own protocol and with the same across the bridge, and writes
docs/decisions.md. Ends with 1 if they do not decide as declared.

  --only TEXT   those with TEXT in their titles; writes nothing`;

async function main(argv: readonly string[]): Promise<number> {
  const { only, help } = parseArgs({
    args: [...argv],
    options: { only: { type: 'string' }, help: { type: 'boolean', default: false } },
  }).values;
  if (help) {
    console.log(usage);
    return 0;
  }
  const chosen = cases.filter((each) => only === undefined || titleOf(each).includes(only));
  for (const version of new Set(chosen.map(({ qemu }) => qemu))) if (isToBeFetched(version)) await fetchQemu(version);
  const decided = new Map<Case, Record<End, Decision>>();
  for (const each of chosen)
    decided.set(each, { native: await tell(each, 'native'), bridged: await tell(each, 'bridged') });
  const text = render(decided, versionsHere());
  console.log(text);
  if (chosen.length === cases.length) writeFileSync(DOCUMENT, text);
  const different = surprises(decided);
  console.error(`${chosen.length - different.length} as declared, ${different.length} not`);
  for (const each of different) console.error(`  ${titleOf(each)}`);
  return different.length === 0 ? 0 : 1;
}

async function tell(each: Case, end: End): Promise<Decision> {
  const decision = await decide(each, end);
  console.error(`${titleOf(each)}, ${end}: ${inWords(decision, each)} ${JSON.stringify(decision)}`);
  return decision;
}

process.exitCode = await main(process.argv.slice(2));
