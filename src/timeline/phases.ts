import type { Protocol } from '../device/migratable.ts';
import type { S2018, S2019 } from '../v1/drafts/states.ts';
import type { V1StateName } from '../v1/states.ts';
import type { V2StateName } from '../v2/states.ts';

/** What a device does, in whatever protocol that is said: equal states have one phase, and with it one colour. */
export type Phase =
  | 'running'
  | 'running-p2p'
  | 'pre-copy'
  | 'pre-copy-p2p'
  | 'stop-copy'
  | 'stop'
  | 'resuming'
  | 'error'
  | 'unknown';

/** How a phase is drawn, and said. */
export interface PhaseLook {
  /** As `#rrggbb`. */
  readonly colour: string;
  /** For what has no colours. */
  readonly letter: string;
  /** Of the 256 of a terminal. */
  readonly terminal: number;
  /** What the device does, as the end of a sentence about it. */
  readonly words: string;
  /** The VM's processors may run meanwhile. */
  readonly runs: boolean;
}

/** A P2P state is a lighter shade: v1 has no word for it. */
export const PHASES: Readonly<Record<Phase, PhaseLook>> = {
  running: { colour: '#6fbf73', letter: 'R', terminal: 77, words: 'runs', runs: true },
  'running-p2p': { colour: '#b7dfb9', letter: 'r', terminal: 151, words: 'runs, without DMA of its own', runs: false },
  'pre-copy': { colour: '#f0b93a', letter: 'P', terminal: 214, words: 'runs, and saves', runs: true },
  'pre-copy-p2p': {
    colour: '#f8e0a4',
    letter: 'p',
    terminal: 223,
    words: 'saves, without DMA of its own',
    runs: false,
  },
  'stop-copy': { colour: '#e07b54', letter: 'C', terminal: 173, words: 'is stopped, and saves', runs: false },
  stop: { colour: '#aab2bd', letter: 'S', terminal: 248, words: 'is stopped', runs: false },
  resuming: { colour: '#64a1d8', letter: 'L', terminal: 74, words: 'loads', runs: false },
  error: { colour: '#c0392b', letter: 'E', terminal: 160, words: 'is broken', runs: false },
  unknown: { colour: '#ffffff', letter: '?', terminal: 255, words: 'has no sense', runs: false },
};

/** v1 has the same names as v2, as far as it has the states. */
const BY_NAME: Readonly<Record<V1StateName | V2StateName, Phase>> = {
  RUNNING: 'running',
  RUNNING_P2P: 'running-p2p',
  PRE_COPY: 'pre-copy',
  PRE_COPY_P2P: 'pre-copy-p2p',
  STOP_COPY: 'stop-copy',
  STOP: 'stop',
  RESUMING: 'resuming',
  ERROR: 'error',
};

const OF_2018: Readonly<Record<keyof typeof S2018, Phase>> = {
  NONE: 'stop',
  RUNNING: 'running',
  MIGRATION_SETUP: 'pre-copy',
  MIGRATION_PRECOPY: 'pre-copy',
  MIGRATION_STOPNCOPY: 'stop-copy',
  MIGRATION_SAVE_COMPLETED: 'stop',
  MIGRATION_RESUME: 'resuming',
  MIGRATION_RESUME_COMPLETED: 'stop',
  MIGRATION_FAILED: 'running',
  MIGRATION_CANCELLED: 'running',
};

const OF_2019: Readonly<Record<Exclude<keyof typeof S2019, 'STOPPED_OR_RESUMING'>, Phase>> = {
  RUNNING: 'running',
  STOP_COPY: 'stop-copy',
  PRE_COPY: 'pre-copy',
};

const TABLES: Readonly<Record<Protocol, ReadonlyMap<string, Phase>>> = {
  v1: new Map(Object.entries(BY_NAME)),
  v2: new Map(Object.entries(BY_NAME)),
  'draft-2018': new Map(Object.entries(OF_2018)),
  'draft-2019': new Map(Object.entries(OF_2019)),
};

/** The phase that a state means. 0 of February 2019 is a stop behind saving, and loading in a device that runs: `before` tells which. */
export function phaseOf(protocol: Protocol, state: string, before?: Phase): Phase {
  if (protocol === 'draft-2019' && state === 'STOPPED_OR_RESUMING') {
    return before === 'running' || before === 'resuming' ? 'resuming' : 'stop';
  }
  return TABLES[protocol].get(state) ?? 'unknown';
}
