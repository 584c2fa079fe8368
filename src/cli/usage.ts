import type { Command, CommanderError } from 'commander';

/** A wrong command line, in one line that says which command's help shows how it is used. */
export class UsageError extends Error {
  override readonly name = 'UsageError';

  /** `command`: the one that was called, if there is such a command. */
  constructor(command: string | undefined, { message }: CommanderError) {
    const help = ['vfio-shim', ...(command === undefined ? [] : [command]), '--help'].join(' ');
    super(`${command === undefined ? '' : `${command}: `}${inOurWords(message)} (${help} shows how it is used)`);
  }
}

/** What commander says, as this command says things: no "error:", no second line, no full stop. */
function inOurWords(message: string): string {
  return message
    .replace(/^error: /, '')
    .replace(/^missing required argument/, 'missing argument')
    .replace(/ for '[\w-]+'\. Expected (\d+) arguments? but got (\d+)\.$/, ': $1 expected, $2 given')
    .replace(/\n\(Did you mean (?:one of )?(.*)\?\)$/, ', did you mean $1?')
    .replace(
      /^option '(--[\w-]+)[^']*' argument '(.*)' is invalid\. Allowed choices are (.*)\.$/s,
      '$1 $2: is none of $3',
    );
}

/** Whether the arguments of a command ask for JSON. They need not be right: what is wrong with them is told in JSON too. */
export function asksForJson(command: Command | undefined, args: readonly string[]): boolean {
  const options = command?.options ?? [];
  if (!options.some(({ long }) => long === '--json')) return false;
  for (let at = 0; at < args.length; at += 1) {
    const arg = args[at] ?? '';
    if (arg === '--json') return true;
    const isOption = arg.startsWith('-') && arg !== '-';
    // what belongs to the command that `run` starts is not ours
    if (arg === '--' || (!isOption && command?.name() === 'run')) return false;
    if (options.some((option) => option.required && (arg === option.short || arg === option.long))) at += 1;
  }
  return false;
}
