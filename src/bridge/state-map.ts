import { ShimError } from '../error.ts';
import { V1, type V1State } from '../v1/states.ts';
import { V2, type V2State } from '../v2/states.ts';

/*
 * The states of the two protocols and how one stands for the other, in both directions. docs/mapping.md has the same tables for
 * readers; a test holds them against these.
 */

/** presentV1: how each v2 state is shown in v1. */
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

/** presentV1: what each v1 state is requested as. */
export const requestedAs: Readonly<Record<Exclude<V1State, 6>, V2State>> = {
  [V1.STOP]: V2.STOP,
  [V1.RUNNING]: V2.RUNNING,
  [V1.STOP_COPY]: V2.STOP_COPY,
  [V1.PRE_COPY]: V2.PRE_COPY,
  [V1.RESUMING]: V2.RESUMING,
};

/** presentV2: where a v1 driver is. Two of its states can be shown as a stop, since a device in them does not run. */
export type V1Place =
  | 'STOP'
  | 'RUNNING'
  | 'PRE_COPY'
  | 'STOP_COPY'
  | 'RESUMING'
  /** device_state 2, and nothing was read: shown as STOP. */
  | 'UNREAD'
  /** device_state 4, all data handed over: shown as STOP. */
  | 'LOADED';

/** presentV2: where a v1 driver can be brought. A P2P state is a full stop, with or without a saving session. */
export type V1Goal = 'STOP' | 'RUNNING' | 'PRE_COPY' | 'STOP_COPY' | 'RESUMING';

/** What is known of a v1 driver beyond what QEMU 5.2 to 7.2 have ever asked of one. */
export interface V1Habits {
  /** It takes no 0 to 2: STOP is written as 3 and 2, from which 0 and 1 lead on. */
  readonly stopBySaving: boolean;
  /** It takes 0 after 4, and loads by then. */
  readonly stopAfterLoad: boolean;
}

type Writes = readonly Exclude<V1State, 6>[];

const NEVER_RUN =
  'the device was loaded and has never run, and a v1 driver leads from RESUMING to RUNNING only: let it run first';
const NO_WAY_BACK = 'v1 stop-and-copy has no way back to pre-copy';
const NOT_FROM_STOP =
  'this v1 driver takes no device_state 2 in 0, and a device that is stopped must not run in between: let it run, then ask again';

/**
 * What is written to device_state. QEMU 5.2 to 7.2, the only VMMs that v1 drivers have ever met, wrote 1>3, 3>2, 2>2, 2>0, 0>1, 1>0, 2>1,
 * 3>1, 0>2, 1>2, 1>4, 0>4, 4>1, 1>1; nothing else is written. A device that its user believes stopped never passes 1. From 1 to 2 the
 * way is 3, as QEMU's was for a VM that ran: some only have a state to give if they came by it (SPDK 22, lib/nvmf/vfio_user.c:
 * vfio_user_migration_device_state_transition). A text says why there is no way.
 */
const writes: Readonly<Record<V1Place, Readonly<Record<V1Goal, Writes | string>>>> = {
  STOP: { STOP: [], RUNNING: [1], STOP_COPY: [2], PRE_COPY: [1, 3], RESUMING: [4] },
  RUNNING: { STOP: [0], RUNNING: [], STOP_COPY: [3, 2], PRE_COPY: [3], RESUMING: [4] },
  PRE_COPY: { STOP: [1, 0], RUNNING: [1], STOP_COPY: [2], PRE_COPY: [], RESUMING: [1, 4] },
  STOP_COPY: { STOP: [0], RUNNING: [1], STOP_COPY: [], PRE_COPY: NO_WAY_BACK, RESUMING: [0, 4] },
  RESUMING: { STOP: [], RUNNING: [1], STOP_COPY: NEVER_RUN, PRE_COPY: [1, 3], RESUMING: [] },
  UNREAD: { STOP: [], RUNNING: [1], STOP_COPY: [], PRE_COPY: [1, 3], RESUMING: [0, 4] },
  LOADED: { STOP: [], RUNNING: [1], STOP_COPY: NEVER_RUN, PRE_COPY: [1, 3], RESUMING: NEVER_RUN },
};

/** The ways that a driver's habits change. */
const withHabits: Readonly<Record<keyof V1Habits, Partial<Record<V1Place, Partial<Record<V1Goal, Writes | string>>>>>> =
  {
    stopBySaving: {
      STOP: { STOP_COPY: NOT_FROM_STOP },
      RUNNING: { STOP: [3, 2] },
      PRE_COPY: { STOP: [1, 3, 2] },
      RESUMING: { STOP_COPY: NEVER_RUN },
      LOADED: { STOP_COPY: NEVER_RUN },
    },
    stopAfterLoad: {
      RESUMING: { STOP: [0], STOP_COPY: [0, 2] },
      LOADED: { STOP: [0], STOP_COPY: [0, 2], RESUMING: [0, 4] },
    },
  };

/** The writes that bring a v1 driver from a place to a goal. Throws `ERR_TRANSITION` (`EINVAL`) if there is no way. */
export function writesFor(place: V1Place, goal: V1Goal, { stopBySaving, stopAfterLoad }: V1Habits): Writes {
  const bySaving = stopBySaving ? withHabits.stopBySaving[place]?.[goal] : undefined;
  const afterLoad = stopAfterLoad ? withHabits.stopAfterLoad[place]?.[goal] : undefined;
  const way = bySaving ?? afterLoad ?? writes[place][goal];
  if (typeof way === 'string') throw new ShimError('ERR_TRANSITION', `device_state: ${way}`, { errno: 'EINVAL' });
  return way;
}

/** The goal that a v2 state is for a v1 driver; `undefined` for ERROR. */
export const goalOf: Readonly<Record<V2State, V1Goal | undefined>> = {
  [V2.ERROR]: undefined,
  [V2.STOP]: 'STOP',
  [V2.RUNNING]: 'RUNNING',
  [V2.STOP_COPY]: 'STOP_COPY',
  [V2.RESUMING]: 'RESUMING',
  [V2.RUNNING_P2P]: 'STOP',
  [V2.PRE_COPY]: 'PRE_COPY',
  [V2.PRE_COPY_P2P]: 'STOP_COPY',
};

const shownPlaces: Readonly<Record<V1Place, readonly [state: V2State, p2p: V2State]>> = {
  STOP: [V2.STOP, V2.RUNNING_P2P],
  UNREAD: [V2.STOP, V2.RUNNING_P2P],
  LOADED: [V2.STOP, V2.RUNNING_P2P],
  RUNNING: [V2.RUNNING, V2.RUNNING],
  PRE_COPY: [V2.PRE_COPY, V2.PRE_COPY],
  STOP_COPY: [V2.STOP_COPY, V2.PRE_COPY_P2P],
  RESUMING: [V2.RESUMING, V2.RESUMING],
};

/** What v1 cannot say of a device: that a stop is shown over device_state 2 or 4, or that a P2P state is shown. */
export interface Shown {
  readonly stopped: boolean;
  readonly p2p: boolean;
}

/** presentV2: where a driver with this device_state is; `undefined` for ERROR. */
export function placeOf(v1: V1State, { stopped }: Shown): V1Place | undefined {
  switch (v1) {
    case V1.ERROR:
      return undefined;
    case V1.STOP:
      return 'STOP';
    case V1.RUNNING:
      return 'RUNNING';
    case V1.PRE_COPY:
      return 'PRE_COPY';
    case V1.STOP_COPY:
      return stopped ? 'UNREAD' : 'STOP_COPY';
    case V1.RESUMING:
      return stopped ? 'LOADED' : 'RESUMING';
  }
}

/** presentV2: the v2 state that a device_state stands for. */
export function meaningOf(v1: V1State, shown: Shown): V2State {
  const place = placeOf(v1, shown);
  return place === undefined ? V2.ERROR : shownPlaces[place][shown.p2p ? 1 : 0];
}
