import type { EventEmitter } from 'node:events';
import type { Argument, Command, Help, Option } from 'commander';
import { deviationLists } from '../../src/check/index.ts';
import { commands } from '../../src/cli/commands.ts';
import { emptyProgram } from '../../src/cli/program.ts';
import { DRIVERS } from '../../src/sim/drivers.ts';
import { V2 } from '../../src/v2/index.ts';

/*
 * The manual and the completions are made of what the command's own `--help` is made of: commander's definitions.
 */

/** What a value can be, as far as a shell can help with it. */
export type Values =
  | { readonly kind: 'words'; readonly words: readonly string[] }
  | { readonly kind: 'file' | 'directory' | 'command' | 'unknown' };

export interface OptionDefinition {
  readonly short: string | undefined;
  readonly long: string;
  readonly description: string;
  /** As `--help` has it on the left and on the right. */
  readonly term: string;
  readonly text: string;
  readonly value: { readonly name: string; readonly values: Values } | undefined;
  /** May be given again. */
  readonly repeats: boolean;
}

export interface ArgumentDefinition {
  readonly name: string;
  readonly description: string;
  readonly required: boolean;
  readonly variadic: boolean;
  readonly values: Values;
}

export interface Definition {
  readonly name: string;
  readonly description: string;
  readonly arguments: readonly ArgumentDefinition[];
  readonly options: readonly OptionDefinition[];
  /** What `--help` says below the options. */
  readonly more: string;
}

export interface Definitions {
  readonly program: Definition;
  readonly commands: readonly Definition[];
}

const words = (...list: string[]): Values => ({ kind: 'words', words: list });
const UNKNOWN: Values = { kind: 'unknown' };

/** What each value is that has no choices, by the name that its definition gives it. A name that is not here is an error. */
const OPTION_VALUES: Readonly<Record<string, Values>> = {
  spec: words(...DRIVERS),
  dir: { kind: 'directory' },
  file: { kind: 'file' },
  path: { kind: 'file' },
  new: { kind: 'file' },
  socket: { kind: 'file' },
  seconds: UNKNOWN,
  known: words('none', ...deviationLists.map(({ name }) => name)),
  size: UNKNOWN,
  device: UNKNOWN,
  'device=state': UNKNOWN,
};
const STATES = words(...Object.keys(V2).map((name) => name.toLowerCase().replaceAll('_', '-')));
const ARGUMENT_VALUES: Readonly<Record<string, Values>> = {
  command: { kind: 'command' },
  device: words(...DRIVERS.map((driver) => `sim:${driver}`), 'vfio:/dev/vfio/'),
  file: { kind: 'file' },
  socket: { kind: 'file' },
  from: STATES,
  to: STATES,
};

export async function readDefinitions(version: string): Promise<Definitions> {
  const program = emptyProgram(version);
  for (const load of commands.values()) (await load()).add(program);
  return { program: definitionOf(program), commands: program.commands.map(definitionOf) };
}

function definitionOf(command: Command): Definition {
  const help = command.createHelp();
  return {
    name: command.name(),
    description: command.description(),
    arguments: command.registeredArguments.map(argumentOf),
    options: help.visibleOptions(command).map((option) => optionOf(option, help)),
    more: belowOptions(command),
  };
}

function optionOf(option: Option, help: Help): OptionDefinition {
  const { short, long, description, argChoices, defaultValue } = option;
  if (long == null) throw new Error(`${option.flags}: has no long name`);
  const name = /[<[](.*)[>\]]/.exec(option.flags)?.[1];
  const values = argChoices === undefined ? OPTION_VALUES[name ?? ''] : words(...argChoices);
  if (name !== undefined && values === undefined) throw new Error(`${option.flags}: what values has it?`);
  return {
    short: short ?? undefined,
    long,
    description,
    term: help.optionTerm(option),
    text: help.optionDescription(option),
    value: name === undefined || values === undefined ? undefined : { name, values },
    repeats: Array.isArray(defaultValue),
  };
}

function argumentOf(argument: Argument): ArgumentDefinition {
  const { description, required, variadic } = argument;
  const name = argument.name();
  const values = ARGUMENT_VALUES[name];
  if (values === undefined) throw new Error(`argument ${name}: what values has it?`);
  return { name, description, required, variadic, values };
}

/** What `addHelpText` has added behind the help: commander has it written by listeners of this event. */
function belowOptions(command: Command): string {
  const pieces: string[] = [];
  const listened = command as unknown as EventEmitter; // which it is, by its documentation
  listened.emit('afterHelp', { error: false, command, write: (text: string) => pieces.push(text) });
  return pieces.join('').trim();
}
