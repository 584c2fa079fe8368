import { V1, type V1State } from '../v1/states.ts';

/** The changes of device_state that libvfio-user's v1 servers take (lib/migration_priv.h: migr_states, until September 2023; b52bff7). */
const transitions: Readonly<Record<V1State, readonly number[]>> = {
  [V1.STOP]: [0, 1],
  [V1.RUNNING]: [0, 1, 2, 3, 4],
  [V1.STOP_COPY]: [0, 1, 2],
  [V1.PRE_COPY]: [0, 1, 2],
  [V1.RESUMING]: [1, 4],
  [V1.ERROR]: [],
};

/** True if a v1 server of libvfio-user takes a write of `target` in `current`. */
export function isLibvfioTransition(current: V1State, target: number): target is Exclude<V1State, 6> {
  return transitions[current].includes(target);
}
