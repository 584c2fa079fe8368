import { Command, CommanderError } from 'commander';
import { fail } from './fail.ts';
import { print, say } from './output.ts';
import { asksForJson, UsageError } from './usage.ts';

/** The package's, which the build writes in its place. */
declare const VERSION: string;

/** What loads each command, by its name. */
export type Commands = ReadonlyMap<string, () => Promise<{ add(program: Command): void }>>;

/** The command line, without its commands. */
export function emptyProgram(version: string): Command {
  return new Command('vfio-shim')
    .description('A bridge between the two Linux VFIO device migration protocols')
    .version(version)
    .enablePositionalOptions();
}

/** Does what the command line says: loads the command that is called, or to list them all of them. */
export async function carryOut(commands: Commands): Promise<void> {
  const [, , name = '', ...args] = process.argv;
  const called = commands.get(name);
  const program = emptyProgram(VERSION)
    .configureOutput({ writeOut: print, writeErr: say, outputError: () => {} }) // errors are told below
    .exitOverride();
  const isJsonAsked = (): boolean => called !== undefined && asksForJson(program.commands[0], args);
  try {
    for (const load of called === undefined ? commands.values() : [called]) (await load()).add(program);
    await program.parseAsync();
  } catch (error) {
    if (!(error instanceof CommanderError)) fail(error, isJsonAsked());
    else if (error.code === 'commander.help') process.exitCode = 2; // called without anything: the help has been shown
    else if (error.exitCode !== 0) fail(new UsageError(called === undefined ? undefined : name, error), isJsonAsked());
  }
}
