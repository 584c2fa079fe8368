import { DRIVERS, kindOf, type DriverName } from './drivers.ts';
import type { Options } from './option.ts';

/** The drivers and options of a SPEC, for help texts. */
export function specHelp(): string {
  const drivers = DRIVERS.map((driver): Line => {
    const { protocol, summary } = kindOf({ driver });
    return [driver, `${protocol}, ${summary}`];
  });
  return ['SPEC is DRIVER[,OPTION=VALUE]...', 'DRIVER:', ...table(drivers), 'OPTION:', ...table(options())].join('\n');
}

type Line = readonly [name: string, text: string];

function table(lines: readonly Line[]): string[] {
  const width = Math.max(...lines.map(([name]) => name.length));
  return lines.map(([name, text]) => `  ${name.padEnd(width)}  ${text}`);
}

/** A line for each option: who has it, unless all have, what it means, and its default, unless that is the driver's. */
function options(): Line[] {
  const owners = new Map<string, DriverName[]>();
  for (const driver of DRIVERS) {
    for (const name of Object.keys(optionsOf(driver))) owners.set(name, [...(owners.get(name) ?? []), driver]);
  }
  return [...owners].map(([name, drivers]): Line => {
    const theirs = drivers.flatMap((driver) => optionsOf(driver)[name] ?? []);
    const whose = drivers.length === DRIVERS.length ? '' : `${drivers.join(', ')}: `;
    const initial = [...new Set(theirs.map((option) => option.format(option.initial).join()))];
    const byDefault = initial.length === 1 && initial[0] !== '' ? ` (default ${initial[0]})` : '';
    return [name, `${whose}${theirs[0]?.meaning}${byDefault}`];
  });
}

function optionsOf(driver: DriverName): Options {
  return kindOf({ driver }).options;
}
