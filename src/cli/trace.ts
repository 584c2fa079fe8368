import { closeSync, openSync, readSync } from 'node:fs';
import type { Command } from 'commander';
import { ShimError } from '../error.ts';
import { readRecording } from '../recording/reader.ts';
import { TraceText } from '../recording/text.ts';
import { inSummary } from '../recording/summary.ts';
import { fileError } from '../state-file/errors.ts';
import { print } from './output.ts';

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
  const entries = readRecording(piecesOf(file));
  try {
    for (const line of isSummary ? inSummary(entries) : entries) {
      print(printer.lineOf(line));
    }
  } catch (error) {
    if (!(error instanceof ShimError) || !error.code.startsWith('ERR_FILE_')) throw error;
    throw new ShimError(error.code, `${file}: ${error.message}`, { errno: 'EINVAL', cause: error });
  }
}

const PIECE = 65_536;

function* piecesOf(file: string): Generator<Uint8Array> {
  const bytes = Buffer.alloc(PIECE);
  const fd = onFile(file, () => (file === '-' ? 0 : openSync(file, 'r')));
  try {
    for (;;) {
      const length = onFile(file, () => readSync(fd, bytes));
      if (length === 0) return;
      yield bytes.subarray(0, length);
    }
  } finally {
    if (fd !== 0) closeSync(fd);
  }
}

function onFile<T>(file: string, access: () => T): T {
  try {
    return access();
  } catch (error) {
    throw fileError(file, error);
  }
}
