import { Option, type Command } from 'commander';
import { nextState, statePath } from '../v2/fsm.ts';
import { dotOf, machineV1, machineV2, mermaidOf, type StateMachine } from '../timeline/state-machine.ts';
import { parseV2State, V2, v2StateName, type V2StateName } from '../v2/states.ts';
import { ShimError } from '../error.ts';
import { print } from './output.ts';

const STATES = Object.keys(V2) as V2StateName[];
const FLAG_SETS = [1, 3, 5, 7];
const ALL = 7;

export function add(program: Command): void {
  program
    .command('fsm')
    .description('the state machines: the table of v2, the path from one state to another, or a picture of v2 or v1')
    .argument('[from]', `a device state: ${STATES.join(', ')}`)
    .argument('[to]', 'a device state')
    .addOption(
      new Option('--flags <n>', 'migration flags: 1 stop-copy, 2 P2P, 4 pre-copy').choices(FLAG_SETS.map(String)),
    )
    .option('--json', 'print JSON')
    .addOption(new Option('--mermaid', 'print the state machine as mermaid draws it').conflicts(['json', 'dot']))
    .addOption(new Option('--dot', 'print the state machine as Graphviz draws it').conflicts('json'))
    .addOption(new Option('--v1', "with --mermaid or --dot: v1's state machine").conflicts('flags'))
    .addHelpText('after', help)
    .action((from: string | undefined, to: string | undefined, options: Options) => {
      const flags = options.flags === undefined ? undefined : Number(options.flags);
      const json = options.json === true;
      const draw = options.mermaid === true ? mermaidOf : options.dot === true ? dotOf : undefined;
      if (draw !== undefined) print(picture(draw, from, flags, options.v1 === true));
      else if (options.v1 === true) throw new ShimError('ERR_ARGUMENT', 'fsm --v1: give --mermaid or --dot too');
      else if (from === undefined) print(json ? tablesAsJson(flags) : tablesAsText(flags));
      else if (to === undefined) throw new ShimError('ERR_ARGUMENT', `fsm ${from}: where to? Give a second state`);
      else print(path(flags ?? ALL, from, to, json));
    });
}

interface Options {
  readonly flags?: string;
  readonly json?: true;
  readonly mermaid?: true;
  readonly dot?: true;
  readonly v1?: true;
}

const help = `
In a picture, states that are equal in v1 and v2 have the same colour. Without --flags it has the hops of all devices, and says which
of them take a device with P2P or PRE_COPY states, or one without.

Example:
  vfio-shim fsm --dot | dot -Tsvg > v2.svg`;

function picture(
  draw: (machine: StateMachine) => string,
  from: string | undefined,
  flags: number | undefined,
  v1: boolean,
): string {
  if (from !== undefined) throw new ShimError('ERR_ARGUMENT', `fsm ${from}: a picture has all states: give none`);
  return draw(v1 ? machineV1() : machineV2(flags));
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
