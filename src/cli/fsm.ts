import { Option, type Command } from 'commander';
import { nextState, statePath } from '../v2/fsm.ts';
import { parseV2State, V2, v2StateName, type V2StateName } from '../v2/states.ts';
import { ShimError } from '../error.ts';
import { print } from './output.ts';

const STATES = Object.keys(V2) as V2StateName[];
const FLAG_SETS = [1, 3, 5, 7];
const ALL = 7;

export function add(program: Command): void {
  program
    .command('fsm')
    .description('the v2 state machine: its table, or the path from one state to another')
    .argument('[from]', `a device state: ${STATES.join(', ')}`)
    .argument('[to]', 'a device state')
    .addOption(
      new Option('--flags <n>', 'migration flags: 1 stop-copy, 2 P2P, 4 pre-copy').choices(FLAG_SETS.map(String)),
    )
    .option('--json', 'print JSON')
    .action((from: string | undefined, to: string | undefined, options: { flags?: string; json?: true }) => {
      const flags = options.flags === undefined ? undefined : Number(options.flags);
      const json = options.json === true;
      if (from === undefined) print(json ? tablesAsJson(flags) : tablesAsText(flags));
      else if (to === undefined) throw new ShimError('ERR_ARGUMENT', `fsm ${from}: where to? Give a second state`);
      else print(path(flags ?? ALL, from, to, json));
    });
}

function path(flags: number, fromText: string, toText: string, json: boolean): string {
  const from = stateOf(fromText);
  const hops = [from, ...statePath(flags, from, stateOf(toText))].map(v2StateName);
  return json ? `${JSON.stringify({ flags, path: hops })}\n` : `${hops.join(' -> ')}\n`;
}

function stateOf(text: string): number {
  try {
    return parseV2State(text);
  } catch (error) {
    if (!(error instanceof ShimError)) throw error;
    throw new ShimError('ERR_ARGUMENT', `fsm: ${error.message}`, { cause: error });
  }
}

function next(flags: number, from: V2StateName, to: V2StateName): string | null {
  const state = nextState(flags, V2[from], V2[to]);
  return state === null ? null : v2StateName(state);
}

/** Next hop by flags, current and requested state; null is EINVAL. */
function tablesAsJson(only: number | undefined): string {
  const tables = FLAG_SETS.filter((flags) => only === undefined || flags === only).map((flags) => {
    const rows = STATES.map((from) => {
      const cells = STATES.map((to) => `${JSON.stringify(to)}: ${JSON.stringify(next(flags, from, to))}`);
      return `  ${JSON.stringify(from)}: {${cells.join(', ')}}`;
    });
    return ` "${flags}": {\n${rows.join(',\n')}\n }`;
  });
  return `{\n${tables.join(',\n')}\n}\n`;
}

function tablesAsText(only: number | undefined): string {
  const flags = only ?? ALL;
  const width = Math.max(...STATES.map((name) => name.length));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell) => cell.padEnd(width))
      .join('  ')
      .trimEnd();
  const rows = STATES.map((from) => line([from, ...STATES.map((to) => next(flags, from, to) ?? '-')]));
  const names = ['stop-copy', ...((flags & 2) === 0 ? [] : ['P2P']), ...((flags & 4) === 0 ? [] : ['pre-copy'])];
  return `Next hop by current state (rows) and requested state (columns), migration flags ${flags} (${names.join(', ')}).
- is EINVAL.

${[line(['', ...STATES]), ...rows].join('\n')}
`;
}
