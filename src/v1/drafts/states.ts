import {
  VFIO_DEVICE_STATE_2018,
  VFIO_DEVICE_STATE_2019_RUNNING,
  VFIO_DEVICE_STATE_2019_SAVING,
} from '../../abi/vfio-drafts.ts';
import type { Draft } from './device.ts';

/** The states of November 2018. */
export const S2018 = VFIO_DEVICE_STATE_2018;
/** The value of `device_state` in a state of November 2018. */
export type State2018 = (typeof S2018)[keyof typeof S2018];

/** The states of February 2019: bits. */
export const S2019 = {
  /** After saving, stopped; otherwise resuming. */
  STOPPED_OR_RESUMING: 0,
  RUNNING: VFIO_DEVICE_STATE_2019_RUNNING,
  STOP_COPY: VFIO_DEVICE_STATE_2019_SAVING,
  /** RUNNING | SAVING */
  PRE_COPY: 3,
} as const;
/** The value of `device_state` in a state of February 2019. */
export type State2019 = (typeof S2019)[keyof typeof S2019];

/** The states of each draft, by name: the name of the state in which a device runs is RUNNING in both. */
export const draftStates: Readonly<Record<Draft, Readonly<Record<string, number>> & { readonly RUNNING: number }>> = {
  'draft-2018': S2018,
  'draft-2019': S2019,
};

/** The name of a device_state value, `(12)` for one without a meaning. */
export function draftStateName(draft: Draft, value: number): string {
  const named = Object.entries(draftStates[draft]).find(([, number]) => number === value);
  return named === undefined ? `(${value})` : named[0];
}

/**
 * From which states each state may be asked for in November 2018. The patch has no picture of that: these are what the VMM of October
 * 2018 asks for, and what is left to do after a migration that failed or was given up.
 */
const reachableFrom: Readonly<Record<State2018, readonly State2018[]>> = {
  [S2018.NONE]: [5, 7, 8, 9],
  [S2018.RUNNING]: [0, 2, 3, 4, 5, 6, 7, 8, 9],
  [S2018.MIGRATION_SETUP]: [0, 1, 8, 9],
  [S2018.MIGRATION_PRECOPY]: [1, 2],
  [S2018.MIGRATION_STOPNCOPY]: [1, 2, 3],
  [S2018.MIGRATION_SAVE_COMPLETED]: [4],
  [S2018.MIGRATION_RESUME]: [0, 1],
  [S2018.MIGRATION_RESUME_COMPLETED]: [6],
  [S2018.MIGRATION_FAILED]: [2, 3, 4, 5, 6, 7],
  [S2018.MIGRATION_CANCELLED]: [2, 3, 4, 5, 6, 7],
};

/** True if a driver takes a write of `target` in `current`. The state that a device is in may always be asked for again. */
export function is2018Transition(current: State2018, target: number): target is State2018 {
  const from = (reachableFrom as Readonly<Record<number, readonly State2018[]>>)[target];
  return from !== undefined && (current === target || from.includes(current));
}

/** True for what may be written in February 2019. */
export function is2019State(value: number): value is State2019 {
  return value >= S2019.STOPPED_OR_RESUMING && value <= S2019.PRE_COPY;
}
