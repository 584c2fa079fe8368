import type { Command } from 'commander';
import { TraceText } from '../recording/text.ts';
import { inSummary } from '../recording/summary.ts';
import { print } from './output.ts';
import { recordingIn } from './recording-file.ts';

export function add(program: Command): void {
  program
    .command('trace')
    .description('print a recording of "run --record" for people, a line per access')
    .argument('<file>', 'the recording; - is stdin')
    .option('--summary', 'print the loops that move data as one line each')
    .addHelpText('after', help)
    .action((file: string, { summary = false }: { readonly summary?: true | false }) => trace(file, summary));
}

const help = `
Times are UTC, to a microsecond, and the time that an access took is between < and >. What was asked of drivers for it follows.

Example:
  vfio-shim run --device qat --record vm.jsonl -- VMM; vfio-shim trace --summary vm.jsonl`;

function trace(file: string, isSummary: boolean): void {
  const printer = new TraceText();
  const entries = recordingIn(file);
  for (const line of isSummary ? inSummary(entries) : entries) print(printer.lineOf(line));
}
