import { extname } from 'node:path';
import type { Command } from 'commander';
import { ShimError } from '../error.ts';
import { NewFile } from '../state-file/new-file.ts';
import { htmlOf } from '../timeline/html.ts';
import { svgOf } from '../timeline/svg.ts';
import { textOf } from '../timeline/text.ts';
import { readTimeline, type Timeline } from '../timeline/timeline.ts';
import { traceEventsOf } from '../timeline/trace-events.ts';
import { checkFileName } from './file-name.ts';
import { print } from './output.ts';
import { recordingIn } from './recording-file.ts';

interface Options {
  readonly output?: string;
  readonly force?: true | false;
  readonly all?: true | false;
}

export function add(program: Command): void {
  program
    .command('timeline')
    .description('draw a migration from recordings of "--record", of its source and its destination')
    .argument('<file...>', 'the recordings')
    .option('-o, --output <new>', `the picture to make, by the end of its name: ${Object.keys(FORMATS).join(', ')}`)
    .option('--force', 'replace NEW if it exists')
    .option('--all', 'draw all that was recorded, not the migration only')
    .addHelpText('after', help)
    .action((files: readonly string[], { output, force = false, all = false }: Options) => {
      for (const file of files) checkFileName('timeline', file);
      if (output === undefined) print(inTerminal(readFiles(files), all));
      else writePicture(files, output, { force, all });
    });
}

const help = `
.svg is a picture, .html a page to zoom into, and .json are events as Perfetto (https://ui.perfetto.dev) opens them. Without
--output the picture is drawn for the terminal, with colours unless NO_COLOR is set.

The recordings are put side by side by their hosts' clocks; one whose data would have come in before they went out is moved, and
the picture says so.

Example:
  vfio-shim timeline source.jsonl destination.jsonl -o migration.svg`;

interface Picture {
  readonly files: readonly string[];
  readonly timeline: Timeline;
  readonly all: boolean;
}

/** What each ending makes: pieces of the file. */
const FORMATS: Readonly<Record<string, (picture: Picture) => Iterable<string>>> = {
  '.svg': ({ timeline, all }) => [svgOf(timeline, all ? timeline.whole : timeline.migration)],
  '.html': ({ timeline }) => [htmlOf(timeline)],
  '.json': ({ timeline, files }) => traceEventsOf(timeline, files.map(recordingIn)),
};

function readFiles(files: readonly string[]): Timeline {
  return readTimeline(files.map(recordingIn));
}

function writePicture(
  files: readonly string[],
  output: string,
  { force, all }: { readonly force: boolean; readonly all: boolean },
): void {
  checkFileName('--output', output);
  const make = FORMATS[extname(output)];
  if (make === undefined) {
    throw new ShimError('ERR_ARGUMENT', `--output ${output}: ends with none of ${Object.keys(FORMATS).join(', ')}`);
  }
  using file = new NewFile(output, force);
  let end = 0;
  for (const piece of inBlocks(make({ files, timeline: readFiles(files), all }))) {
    file.write(piece, end);
    end += piece.length;
  }
  file.commit();
}

const BLOCK = 65_536;

/** Texts as bytes, so many at once that each write is worth it. */
function* inBlocks(texts: Iterable<string>): Generator<Uint8Array> {
  let held = '';
  for (const text of texts) {
    held += text;
    if (held.length < BLOCK) continue;
    yield Buffer.from(held);
    held = '';
  }
  yield Buffer.from(held);
}

/** A terminal that has no width is taken for one of this many columns, as is what is no terminal. */
const COLUMNS = 100;

function inTerminal(timeline: Timeline, all: boolean): string {
  const { isTTY, columns } = process.stdout;
  const colour = isTTY && (process.env['NO_COLOR'] ?? '') === '';
  const range = all ? timeline.whole : timeline.migration;
  return textOf(timeline, { columns: isTTY && columns > 0 ? columns : COLUMNS, colour, range });
}
