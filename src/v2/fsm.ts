import { VFIO_MIGRATION_P2P, VFIO_MIGRATION_PRE_COPY, VFIO_MIGRATION_STOP_COPY } from '../abi/vfio-v2.ts';
import { ShimError } from '../error.ts';
import { isV2State, V2, v2StateName, type V2State, type V2StateName } from './states.ts';

/*
 * The kernel's migration state machine (drivers/vfio/vfio_main.c: vfio_mig_get_next_state, Linux 6.2 to 6.12) as two
 * tables: the next hop of a device that has every state, and the migration flags that each state needs. Hops into states
 * that a device lacks are passed over.
 */

const { STOP_COPY, P2P, PRE_COPY } = {
  STOP_COPY: VFIO_MIGRATION_STOP_COPY,
  P2P: VFIO_MIGRATION_P2P,
  PRE_COPY: VFIO_MIGRATION_PRE_COPY,
};

/** The migration flags that a device must have for a state to exist; ERROR is entered by devices, never on request. */
const flagsOf: Readonly<Record<V2StateName, number>> = {
  ERROR: ~0,
  STOP: STOP_COPY,
  RUNNING: STOP_COPY,
  STOP_COPY,
  RESUMING: STOP_COPY,
  RUNNING_P2P: STOP_COPY | P2P,
  PRE_COPY: STOP_COPY | PRE_COPY,
  PRE_COPY_P2P: STOP_COPY | P2P | PRE_COPY,
};

type Hops = Readonly<Record<Exclude<V2StateName, 'ERROR'>, V2StateName>>;
const nextHop: Readonly<Record<Exclude<V2StateName, 'ERROR'>, Hops>> = {
  STOP: {
    STOP: 'STOP',
    RUNNING: 'RUNNING_P2P',
    STOP_COPY: 'STOP_COPY',
    RESUMING: 'RESUMING',
    RUNNING_P2P: 'RUNNING_P2P',
    PRE_COPY: 'RUNNING_P2P',
    PRE_COPY_P2P: 'RUNNING_P2P',
  },
  RUNNING: {
    STOP: 'RUNNING_P2P',
    RUNNING: 'RUNNING',
    STOP_COPY: 'RUNNING_P2P',
    RESUMING: 'RUNNING_P2P',
    RUNNING_P2P: 'RUNNING_P2P',
    PRE_COPY: 'PRE_COPY',
    PRE_COPY_P2P: 'RUNNING_P2P',
  },
  STOP_COPY: {
    STOP: 'STOP',
    RUNNING: 'STOP',
    STOP_COPY: 'STOP_COPY',
    RESUMING: 'STOP',
    RUNNING_P2P: 'STOP',
    PRE_COPY: 'ERROR',
    PRE_COPY_P2P: 'ERROR',
  },
  RESUMING: {
    STOP: 'STOP',
    RUNNING: 'STOP',
    STOP_COPY: 'STOP',
    RESUMING: 'RESUMING',
    RUNNING_P2P: 'STOP',
    PRE_COPY: 'STOP',
    PRE_COPY_P2P: 'STOP',
  },
  RUNNING_P2P: {
    STOP: 'STOP',
    RUNNING: 'RUNNING',
    STOP_COPY: 'STOP',
    RESUMING: 'STOP',
    RUNNING_P2P: 'RUNNING_P2P',
    PRE_COPY: 'RUNNING',
    PRE_COPY_P2P: 'PRE_COPY_P2P',
  },
  PRE_COPY: {
    STOP: 'RUNNING',
    RUNNING: 'RUNNING',
    STOP_COPY: 'PRE_COPY_P2P',
    RESUMING: 'RUNNING',
    RUNNING_P2P: 'RUNNING',
    PRE_COPY: 'PRE_COPY',
    PRE_COPY_P2P: 'PRE_COPY_P2P',
  },
  PRE_COPY_P2P: {
    STOP: 'RUNNING_P2P',
    RUNNING: 'RUNNING_P2P',
    STOP_COPY: 'STOP_COPY',
    RESUMING: 'RUNNING_P2P',
    RUNNING_P2P: 'RUNNING_P2P',
    PRE_COPY: 'PRE_COPY',
    PRE_COPY_P2P: 'PRE_COPY_P2P',
  },
};

/** True if a device with these migration flags has the state. ERROR is no state that can be asked for. */
export function hasState(flags: number, state: number): state is V2State {
  if (!isV2State(state) || state === V2.ERROR) return false;
  const needed = flagsOf[v2StateName(state) as V2StateName];
  return (flags & needed) === needed;
}

/**
 * The next hop from `current` to `target` for a device with these `VFIO_MIGRATION_*` flags; `null` if the kernel
 * answers `EINVAL` (a state the device lacks, ERROR, or STOP_COPY back to pre-copy).
 */
export function nextState(flags: number, current: number, target: number): V2State | null {
  if (!hasState(flags, current) || !hasState(flags, target)) return null;
  const goal = v2StateName(target) as keyof Hops;
  let hop = nextHop[v2StateName(current) as keyof Hops][goal];
  while (hop !== 'ERROR' && !hasState(flags, V2[hop])) hop = nextHop[hop][goal];
  return hop === 'ERROR' ? null : V2[hop];
}

/**
 * Every state that a combination transition passes, `target` last; empty if `current` is `target`.
 * Throws `ERR_TRANSITION` (`EINVAL`), naming the arc that does not exist.
 */
export function statePath(flags: number, current: number, target: number): V2State[] {
  const path: V2State[] = [];
  let at = current;
  while (at !== target || path.length === 0) {
    const hop = nextState(flags, at, target);
    if (hop === null) throw refusedTransition(flags, current, target);
    if (hop === at) break;
    path.push(hop);
    at = hop;
  }
  return path;
}

function refusedTransition(flags: number, current: number, target: number): ShimError {
  const reason = [current, target]
    .filter((state) => !hasState(flags, state))
    .map((state) => `a device with migration flags ${flags} has no state ${v2StateName(state)} to go through`)[0];
  return new ShimError(
    'ERR_TRANSITION',
    `transition ${v2StateName(current)} to ${v2StateName(target)}: ${reason ?? 'pre-copy cannot be re-entered from STOP_COPY'}`,
    { errno: 'EINVAL' },
  );
}
