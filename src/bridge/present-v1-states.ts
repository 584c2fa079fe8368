import { V1, type V1State } from '../v1/states.ts';
import { V2, type V2State } from '../v2/states.ts';

/** How each v2 state is shown in v1. */
export const shownAs: Readonly<Record<V2State, V1State>> = {
  [V2.ERROR]: V1.ERROR,
  [V2.STOP]: V1.STOP,
  [V2.RUNNING]: V1.RUNNING,
  [V2.STOP_COPY]: V1.STOP_COPY,
  [V2.RESUMING]: V1.RESUMING,
  [V2.RUNNING_P2P]: V1.RUNNING,
  [V2.PRE_COPY]: V1.PRE_COPY,
  [V2.PRE_COPY_P2P]: V1.PRE_COPY,
};

/** What each v1 state is requested as. */
export const requestedAs: Readonly<Record<Exclude<V1State, 6>, V2State>> = {
  [V1.STOP]: V2.STOP,
  [V1.RUNNING]: V2.RUNNING,
  [V1.STOP_COPY]: V2.STOP_COPY,
  [V1.PRE_COPY]: V2.PRE_COPY,
  [V1.RESUMING]: V2.RESUMING,
};
