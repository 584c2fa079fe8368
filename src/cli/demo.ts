import { join } from 'node:path';
import { type Command } from 'commander';
import { runDemo } from '../demo/demo.ts';
import { printedStory, silentStory } from '../demo/story.ts';
import { NewFile } from '../state-file/new-file.ts';
import { svgOf } from '../timeline/svg.ts';
import { readTimeline } from '../timeline/timeline.ts';
import { printOrEnd } from './fail.ts';
import { checkFileName } from './file-name.ts';
import { recordingIn } from './recording-file.ts';
import { print } from './output.ts';

export function add(program: Command): void {
  program
    .command('demo')
    .description('migrate devices across both protocols and show each step')
    .option('--no-qemu', 'use a small VMM of this package even if QEMU 7.x is installed')
    .option('--json', 'print one JSON object at the end')
    .option('--svg <new>', 'make a picture of the migration of part 1, as "timeline" does')
    .action(async ({ qemu, json, svg }: { readonly qemu: boolean; readonly json?: true; readonly svg?: string }) => {
      if (svg !== undefined) checkNew(svg);
      const shim = [process.execPath, join(import.meta.dirname, 'main.js')];
      const story = json === true ? silentStory : printedStory(printOrEnd);
      const drawn = svg === undefined ? {} : { onRecordings: (files: readonly string[]) => writePicture(files, svg) };
      const result = await runDemo({ story, shim, qemu, ...drawn });
      if (json === true) print(`${JSON.stringify(result)}\n`);
    });
}

/** Throws what writePicture() would throw in the end: that the file exists, or that there is no room for it. */
function checkNew(svg: string): void {
  checkFileName('--svg', svg);
  using _ = new NewFile(svg);
}

function writePicture(recordings: readonly string[], svg: string): void {
  using file = new NewFile(svg);
  file.write(Buffer.from(svgOf(readTimeline(recordings.map(recordingIn)))), 0);
  file.commit();
}
