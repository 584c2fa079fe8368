import { VFIO_MIGRATION_P2P, VFIO_MIGRATION_PRE_COPY, VFIO_MIGRATION_STOP_COPY } from '../abi/vfio-v2.ts';
import { isV1State, isV1Transition, V1, type V1StateName } from '../v1/states.ts';
import { hasState, nextState } from '../v2/fsm.ts';
import { V2, type V2StateName } from '../v2/states.ts';
import { PHASES, phaseOf } from './phases.ts';

/** A state machine as a picture has it. */
export interface StateMachine {
  readonly protocol: 'v1' | 'v2';
  readonly states: readonly string[];
  readonly arcs: readonly Arc[];
}

/** A way from one state to another. */
export interface Arc {
  readonly from: string;
  readonly to: string;
  /** What is asked for, or what a device must have, or lack. */
  readonly label: string;
  /** Not every device has it, or it is no request for a state. */
  readonly optional: boolean;
}

const STOP_COPY = VFIO_MIGRATION_STOP_COPY;
const P2P = VFIO_MIGRATION_P2P;
const PRE_COPY = VFIO_MIGRATION_PRE_COPY;
/** What migration flags a device can have. */
const FLAG_SETS = [STOP_COPY, STOP_COPY | P2P, STOP_COPY | PRE_COPY, STOP_COPY | P2P | PRE_COPY];

/** A reset leads from ERROR to RUNNING in both, and nothing else leads out of it. */
const RESET: Arc = { from: 'ERROR', to: 'RUNNING', label: 'reset', optional: true };

/** v1 by its own table: an arc is a write of device_state, whose value it has. */
export function machineV1(): StateMachine {
  const states = Object.keys(V1) as V1StateName[];
  const arcs = states.flatMap((from) =>
    states
      .filter((to) => from !== to && isV1State(V1[from]) && isV1Transition(V1[from], V1[to]))
      .map((to) => ({ from, to, label: String(V1[to]), optional: false })),
  );
  return { protocol: 'v1', states, arcs: [...arcs, RESET] };
}

/**
 * v2 by the kernel's table: an arc is a hop, after which no other follows. Of a device with these flags, or with `undefined` of all
 * devices, with what a device needs for it that not all have.
 */
export function machineV2(flags?: number): StateMachine {
  const sets = flags === undefined ? FLAG_SETS : [flags];
  const states = (Object.keys(V2) as V2StateName[]).filter(
    (state) => state === 'ERROR' || sets.some((set) => hasState(set, V2[state])),
  );
  const arcs = states.flatMap((from) =>
    states.flatMap((to) => {
      const having = sets.filter((set) => from !== to && nextState(set, V2[from], V2[to]) === V2[to]);
      if (having.length === 0) return [];
      return [{ from, to, label: conditionOf(having, sets), optional: having.length < sets.length }];
    }),
  );
  return { protocol: 'v2', states, arcs: [...arcs, RESET] };
}

/** What the sets have in common that the others have not. */
function conditionOf(having: readonly number[], sets: readonly number[]): string {
  if (having.length === sets.length) return '';
  const known: readonly (readonly [flag: number, name: string])[] = [
    [P2P, 'P2P'],
    [PRE_COPY, 'PRE_COPY'],
  ];
  return known
    .flatMap(([flag, name]) => {
      if (having.every((set) => (set & flag) !== 0)) return [name];
      return having.every((set) => (set & flag) === 0) ? [`without ${name}`] : [];
    })
    .join(', ');
}

/** As mermaid draws it (stateDiagram-v2). It has no dashed lines there: what is optional has its condition as a label. */
export function mermaidOf({ protocol, states, arcs }: StateMachine): string {
  return [
    'stateDiagram-v2',
    ...states.map((state) => `  classDef ${classOf(protocol, state)} fill:${colourOf(protocol, state)},color:#000`),
    ...arcs.map(({ from, to, label }) => `  ${from} --> ${to}${label === '' ? '' : `: ${label}`}`),
    ...states.map((state) => `  class ${state} ${classOf(protocol, state)}`),
    '',
  ].join('\n');
}

/** As Graphviz draws it. What is optional is dashed. */
export function dotOf({ protocol, states, arcs }: StateMachine): string {
  return [
    `digraph "${protocol}" {`,
    '  rankdir=LR;',
    '  node [shape=box, style="rounded,filled", fontname="sans-serif"];',
    '  edge [fontname="sans-serif", fontsize=10];',
    ...states.map((state) => `  ${state} [fillcolor="${colourOf(protocol, state)}"];`),
    ...arcs.map(({ from, to, label, optional }) => {
      const attributes = [...(label === '' ? [] : [`label="${label}"`]), ...(optional ? ['style=dashed'] : [])];
      return `  ${from} -> ${to}${attributes.length === 0 ? '' : ` [${attributes.join(', ')}]`};`;
    }),
    '}',
    '',
  ].join('\n');
}

function colourOf(protocol: 'v1' | 'v2', state: string): string {
  return PHASES[phaseOf(protocol, state)].colour;
}

/** A name that is no word of mermaid's. */
function classOf(protocol: 'v1' | 'v2', state: string): string {
  return phaseOf(protocol, state).replaceAll('-', '_');
}
