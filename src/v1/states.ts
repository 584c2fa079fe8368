import {
  VFIO_DEVICE_STATE_V1_ERROR,
  VFIO_DEVICE_STATE_V1_MASK,
  VFIO_DEVICE_STATE_V1_RESUMING,
  VFIO_DEVICE_STATE_V1_RUNNING,
  VFIO_DEVICE_STATE_V1_SAVING,
  VFIO_DEVICE_STATE_V1_STOP,
} from '../abi/vfio-v1.ts';

/** The combinations of device_state bits that have a meaning (linux/vfio.h, 5.8: "device_state"). */
export const V1 = {
  STOP: VFIO_DEVICE_STATE_V1_STOP,
  RUNNING: VFIO_DEVICE_STATE_V1_RUNNING,
  STOP_COPY: VFIO_DEVICE_STATE_V1_SAVING,
  /** RUNNING | SAVING */
  PRE_COPY: 3,
  RESUMING: VFIO_DEVICE_STATE_V1_RESUMING,
  ERROR: VFIO_DEVICE_STATE_V1_ERROR,
} as const satisfies Readonly<Record<string, number>>;

/** The name of a state of v1. */
export type V1StateName = keyof typeof V1;
/** The value of `device_state` in a state of v1. */
export type V1State = 0 | 1 | 2 | 3 | 4 | 6;

const names = new Map(Object.entries(V1).map(([name, value]) => [value as number, name as V1StateName]));

/** The name of a device_state value, `(5)` for one without a meaning. */
export function v1StateName(value: number): string {
  return names.get(value) ?? `(${value})`;
}

/** True for a value that a driver may show: one of the six, reserved bits aside. */
export function isV1State(value: number): value is V1State {
  return names.has(value);
}

/** device_state without the reserved bits 3 to 31, which users keep as they find them. */
export function withoutReserved(value: number): number {
  return value & VFIO_DEVICE_STATE_V1_MASK;
}

/**
 * From which states each state may be asked for. The state that a device is in may always be asked for again. ERROR is
 * left by a reset only, and stop-and-copy never goes back to pre-copy.
 */
const reachableFrom: Readonly<Record<Exclude<V1State, 6>, readonly V1State[]>> = {
  [V1.RUNNING]: [V1.STOP, V1.STOP_COPY, V1.PRE_COPY, V1.RESUMING],
  [V1.STOP]: [V1.RUNNING, V1.STOP_COPY, V1.PRE_COPY, V1.RESUMING],
  [V1.PRE_COPY]: [V1.RUNNING, V1.STOP],
  [V1.STOP_COPY]: [V1.STOP, V1.RUNNING, V1.PRE_COPY],
  [V1.RESUMING]: [V1.STOP, V1.RUNNING],
};

/** True if a v1 driver takes a write of `target` in `current`. */
export function isV1Transition(current: V1State, target: number): target is Exclude<V1State, 6> {
  if (!isV1State(target) || target === V1.ERROR) return false;
  return current === target || reachableFrom[target].includes(current);
}
