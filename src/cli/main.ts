#!/usr/bin/env node
import { createRequire } from 'node:module';
import { Command, CommanderError } from 'commander';
import { fail } from './fail.ts';

const USAGE = 2;
const { version } = createRequire(import.meta.url)('../../package.json') as { version: string };

const program = new Command('vfio-shim')
  .description('A bridge between the two Linux VFIO device migration protocols')
  .version(version)
  .enablePositionalOptions()
  .showHelpAfterError('(vfio-shim --help shows how it is used)')
  .exitOverride();

/** Each command is loaded when it is called; all of them to list them. */
const commands: Readonly<Record<string, () => Promise<{ add(program: Command): void }>>> = {
  run: () => import('./run.ts'),
  probe: () => import('./probe.ts'),
  save: () => import('./save.ts'),
  restore: () => import('./restore.ts'),
  fsm: () => import('./fsm.ts'),
  demo: () => import('./demo.ts'),
};
const called = commands[process.argv[2] ?? ''];

try {
  for (const load of called === undefined ? Object.values(commands) : [called]) (await load()).add(program);
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : USAGE;
  else fail(error);
}
