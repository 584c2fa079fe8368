#!/usr/bin/env node
import { createRequire } from 'node:module';
import { Command, CommanderError } from 'commander';
import { fail } from './fail.ts';
import { print, say } from './output.ts';
import { asksForJson, UsageError } from './usage.ts';

const { version } = createRequire(import.meta.url)('../../package.json') as { version: string };

const program = new Command('vfio-shim')
  .description('A bridge between the two Linux VFIO device migration protocols')
  .version(version)
  .enablePositionalOptions()
  .configureOutput({ writeOut: print, writeErr: say, outputError: () => {} }) // errors are told below
  .exitOverride();

/** Each command is loaded when it is called; all of them to list them. */
const commands = new Map<string, () => Promise<{ add(program: Command): void }>>([
  ['run', () => import('./run.ts')],
  ['probe', () => import('./probe.ts')],
  ['save', () => import('./save.ts')],
  ['restore', () => import('./restore.ts')],
  ['stream', () => import('./stream.ts')],
  ['fsm', () => import('./fsm.ts')],
  ['demo', () => import('./demo.ts')],
]);
const [, , name = '', ...args] = process.argv;
const called = commands.get(name);

try {
  for (const load of called === undefined ? commands.values() : [called]) (await load()).add(program);
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof CommanderError)) fail(error, isJsonAsked());
  else if (error.code === 'commander.help') process.exitCode = 2; // called without anything: the help has been shown
  else if (error.exitCode !== 0) fail(new UsageError(called === undefined ? undefined : name, error), isJsonAsked());
}

function isJsonAsked(): boolean {
  return called !== undefined && asksForJson(program.commands[0], args);
}
