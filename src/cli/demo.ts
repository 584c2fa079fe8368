import { join } from 'node:path';
import { type Command } from 'commander';
import { runDemo } from '../demo/demo.ts';
import { printedStory, silentStory } from '../demo/story.ts';
import { printOrEnd } from './fail.ts';
import { print } from './output.ts';

export function add(program: Command): void {
  program
    .command('demo')
    .description('migrate devices across both protocols and show each step')
    .option('--no-qemu', 'use a small VMM of this package even if QEMU 7.x is installed')
    .option('--json', 'print one JSON object at the end')
    .action(async (options: { qemu: boolean; json?: true }) => {
      const json = options.json === true;
      const shim = [process.execPath, join(import.meta.dirname, 'main.js')];
      const result = await runDemo({ story: json ? silentStory : printedStory(printOrEnd), shim, qemu: options.qemu });
      if (json) print(`${JSON.stringify(result)}\n`);
    });
}
