import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { fetchQemu, isToBeFetched } from '../tools/vmm/binaries.ts';
import { declared, titleOf, type Cell, type Outcome } from './cell.ts';
import { cells, QEMUS } from './cells.ts';
import { render, versionsHere } from './report.ts';
import { runCell } from './run-cell.ts';
import { Store } from './store.ts';

const DOCUMENT = fileURLToPath(new URL('../docs/matrix.md', import.meta.url));

const usage = `npm run matrix -- [options]

Runs each QEMU on emulated devices, to itself and to each other, one migration after the other, and writes docs/matrix.md.
Ends with 1 if a migration did not come out as declared. VFIO_SHIM_FETCH=1 fetches QEMUs that are missing.

  --quick       a subset; writes nothing
  --only TEXT   those with TEXT in their titles; writes nothing
  --resume      what a run before found out that was ended is not run again
  --list        prints the titles
  --verbose     what all processes printed if a migration fails`;

async function main(argv: readonly string[]): Promise<number> {
  const { quick, only, resume, list, verbose, help } = parseArgs({
    args: [...argv],
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      resume: { type: 'boolean', default: false },
      list: { type: 'boolean', default: false },
      verbose: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  }).values;
  if (help) return say(usage);
  const chosen = cells.filter(
    (cell) => (!quick || cell.quick === true) && (only === undefined || titleOf(cell).includes(only)),
  );
  if (list) return say(chosen.map(titleOf).join('\n'));
  for (const version of QEMUS.filter(isToBeFetched)) await fetchQemu(version);

  const versions = versionsHere();
  const store = new Store(versions, resume);
  const outcomes = new Map<Cell, Outcome>();
  for (const cell of chosen) {
    const begin = performance.now();
    const known = store.get(cell);
    const outcome = known ?? (await runCell(cell));
    outcomes.set(cell, outcome);
    if (known !== undefined) continue;
    store.set(cell, outcome);
    const seconds = ((performance.now() - begin) / 1000).toFixed(1);
    console.error(`${titleOf(cell)}: ${inWords(outcome)} (${seconds} s)`);
    if (verbose && outcome.verdict === 'fails') console.error(outcome.story);
  }
  const text = render(outcomes, versions);
  console.log(text);
  if (chosen.length === cells.length) writeFileSync(DOCUMENT, text);
  const surprises = chosen.filter((cell) => outcomes.get(cell)?.verdict !== declared(cell).verdict);
  console.error(`${chosen.length - surprises.length} as declared, ${surprises.length} not`);
  for (const cell of surprises) console.error(`  ${titleOf(cell)}`);
  return surprises.length === 0 ? 0 : 1;
}

function inWords(outcome: Outcome): string {
  if (outcome.verdict !== 'works') return `${outcome.verdict}: ${outcome.words}`;
  return outcome.sha256 === undefined ? 'works' : `works, device memory ${outcome.sha256.slice(0, 16)} at both ends`;
}

function say(text: string): number {
  console.log(text);
  return 0;
}

process.exitCode = await main(process.argv.slice(2));
