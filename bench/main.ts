import { cpus, release } from 'node:os';
import { parseArgs } from 'node:util';
import type { Benchmark, Options } from './benchmark.ts';
import { benchmarks } from './benchmarks.ts';
import { paired } from './paired.ts';
import { defaultCli } from './programs.ts';
import { writePerformance } from './performance.ts';
import { resultsOf, table, type Result } from './report.ts';

const usage = `npm run bench -- [options] [NAME...]

Measures the interposer against a baseline of the same run, in turns. All benchmarks, or those named:
${benchmarks.map(({ name, about }) => `  ${name.padEnd(11)} ${about}`).join('\n')}

  --json        print one JSON object
  --rounds N    pairs to measure, each benchmark's own number by default
  --baseline    the baselines alone; needs no interposer, except for vmm
  --checksum    stop-copy: read every byte, on both sides
  --cli FILE    another interposer than dist/cli/main.js
  --write       scale: write docs/performance.md`;

class UsageError extends Error {}

function parse(argv: readonly string[]) {
  try {
    const { values, positionals } = parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        json: { type: 'boolean', default: false },
        rounds: { type: 'string' },
        baseline: { type: 'boolean', default: false },
        checksum: { type: 'boolean', default: false },
        cli: { type: 'string', default: defaultCli },
        write: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
    const rounds = values.rounds === undefined ? undefined : Number(values.rounds);
    if (rounds !== undefined && !(Number.isSafeInteger(rounds) && rounds > 0)) {
      throw new Error(`--rounds is not a positive number: ${values.rounds}`);
    }
    const unknown = positionals.find((name) => benchmarks.every((benchmark) => benchmark.name !== name));
    if (unknown !== undefined) throw new Error(`no such benchmark: ${unknown}`);
    return { ...values, rounds, names: positionals };
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error), { cause: error });
  }
}

function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001B[K${text}`);
}

async function measure(
  benchmark: Benchmark,
  options: Options,
  rounds: number,
  baselineOnly: boolean,
): Promise<Result[]> {
  try {
    const { ours, baseline } = await benchmark.prepare(options);
    const pairs = await paired(rounds, baselineOnly ? undefined : ours, baseline, (round) =>
      progress(`${benchmark.name}: ${round === 0 ? 'warm-up' : `${round} of ${rounds}`}`),
    );
    return resultsOf(benchmark, pairs);
  } finally {
    progress('');
  }
}

async function main(argv: readonly string[]): Promise<number> {
  const { json, rounds, baseline, checksum, cli, write, help, names } = parse(argv);
  if (help) {
    console.log(usage);
    return 0;
  }
  const results: Result[] = [];
  let failed = false;
  for (const benchmark of benchmarks) {
    if (names.length > 0 && !names.includes(benchmark.name)) continue;
    const missing = benchmark.missing?.();
    if (missing !== undefined) {
      console.error(`bench: ${benchmark.name} skipped, ${benchmark.about}: ${missing}`);
      continue;
    }
    try {
      results.push(...(await measure(benchmark, { cli, checksum }, rounds ?? benchmark.rounds, baseline)));
    } catch (error) {
      console.error(
        `bench: ${benchmark.name} could not run: ${error instanceof Error ? error.message : String(error)}`,
      );
      failed = true;
    }
  }
  const processors = cpus();
  const machine = {
    kernel: release(),
    node: process.version,
    cpu: processors[0]?.model ?? 'unknown',
    cpus: processors.length,
  };
  if (json) console.log(JSON.stringify({ machine, results }, undefined, 2));
  else if (results.length > 0) {
    console.log(
      `Linux ${machine.kernel}, Node ${machine.node}, ${machine.cpus} x ${machine.cpu}; median (min to max)\n`,
    );
    console.log(table(results));
  }
  if (write) console.log(`\n${writePerformance(results, machine)} is written`);
  return failed ? 1 : 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  console.error(`bench: ${error.message}`);
  process.exitCode = 2;
}
