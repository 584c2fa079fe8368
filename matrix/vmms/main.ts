import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { fetchQemu, isToBeFetched, missingQemu } from '../../tools/vmm/binaries.ts';
import { QEMUS } from '../cells.ts';
import { versionsHere } from '../report.ts';
import { cases, titleOf, type Case } from './cases.ts';
import { render } from './report.ts';
import { runCase, type Outcome } from './run-case.ts';
import { Store } from './store.ts';

const DOCUMENT = fileURLToPath(new URL('../../docs/vmms.md', import.meta.url));

const usage = `npm run vmms -- [options]

Records live migrations of each QEMU, judges both ends by the rules of its protocol, and writes docs/vmms.md. VFIO_SHIM_FETCH=1
fetches QEMUs that are missing. Ends with 1 if a migration could not be judged.

  --resume      what a run before has judged is not run again
  --only TEXT   those with TEXT in their titles; writes nothing
  --list        prints the titles`;

async function main(argv: readonly string[]): Promise<number> {
  const { only, resume, list, help } = parseArgs({
    args: [...argv],
    options: {
      only: { type: 'string' },
      resume: { type: 'boolean' },
      list: { type: 'boolean' },
      help: { type: 'boolean' },
    },
  }).values;
  if (help === true) return say(usage);
  const chosen = cases.filter((one) => only === undefined || titleOf(one).includes(only));
  if (list === true) return say(chosen.map(titleOf).join('\n'));
  for (const version of QEMUS.filter(isToBeFetched)) await fetchQemu(version);
  const outcomes = new Map<Case, Outcome>();
  const store = new Store(resume === true);
  let failures = 0;
  for (const one of chosen) {
    try {
      const missing = missingQemu(one.qemu);
      if (missing !== undefined) throw new Error(missing);
      const outcome = store.get(titleOf(one)) ?? (await runCase(one));
      outcomes.set(one, outcome);
      store.set(titleOf(one), outcome);
      const found = [...outcome.source.findings, ...outcome.destination.findings].map(({ id }) => id);
      console.error(`${titleOf(one)}: ${outcome.status}; ${found.length === 0 ? 'no findings' : found.join(', ')}`);
    } catch (error) {
      failures += 1;
      console.error(`${titleOf(one)}: not judged: ${(error as Error).message}`);
    }
  }
  const text = render(outcomes, versionsHere());
  console.log(text);
  if (only === undefined && failures === 0) writeFileSync(DOCUMENT, text);
  return failures === 0 ? 0 : 1;
}

function say(text: string): number {
  console.log(text);
  return 0;
}

process.exitCode = await main(process.argv.slice(2));
