import { DRIVERS, driversWith, kindOf, optionsOf } from './drivers.ts';

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
  const names = new Set(DRIVERS.flatMap((driver) => Object.keys(optionsOf(driver))));
  return Array.from(names, (name): Line => {
    const drivers = driversWith(name);
    const theirs = drivers.flatMap((driver) => optionsOf(driver)[name] ?? []);
    const whose = drivers.length === DRIVERS.length ? '' : `${drivers.join(', ')}: `;
    const defaults = new Set(theirs.map((option) => option.format(option.initial).join()));
    const [initial = ''] = defaults;
    const byDefault = defaults.size === 1 && initial !== '' ? ` (default ${initial})` : '';
    return [name, `${whose}${theirs[0]?.meaning}${byDefault}`];
  });
}
