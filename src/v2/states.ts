import { VFIO_DEVICE_STATE } from '../abi/vfio-v2.ts';
import { ShimError } from '../error.ts';

/** `enum vfio_device_mig_state` (linux/vfio.h, 5.18; PRE_COPY 6.2), without the prefix. */
export type V2StateName = keyof typeof VFIO_DEVICE_STATE;
/** The number of a state of v2. */
export type V2State = (typeof VFIO_DEVICE_STATE)[V2StateName];
/** The states of v2, by name. */
export const V2 = VFIO_DEVICE_STATE;

const names = new Map<number, V2StateName>(
  Object.entries(VFIO_DEVICE_STATE).map(([name, number]) => [number, name as V2StateName]),
);

/** True for the number of a state, ERROR included. */
export function isV2State(value: number): value is V2State {
  return names.has(value);
}

/** The name of a state number, `(9)` for a number that names none. */
export function v2StateName(value: number): string {
  return names.get(value) ?? `(${value})`;
}

/** A state from its name, with or without the kernel's prefix, any case. */
export function parseV2State(text: string): V2State {
  const name = text
    .toUpperCase()
    .replace(/^VFIO_DEVICE_STATE_/, '')
    .replaceAll('-', '_');
  const value = (VFIO_DEVICE_STATE as Readonly<Record<string, V2State>>)[name];
  if (value === undefined) {
    throw new ShimError('ERR_STATE_UNKNOWN', `device state: ${text} is none of ${[...names.values()].join(', ')}`, {
      errno: 'EINVAL',
    });
  }
  return value;
}

/** The two states in which a saving session streams without the device having stopped. */
export function isPreCopy(state: V2State): boolean {
  return state === V2.PRE_COPY || state === V2.PRE_COPY_P2P;
}

/** The states that share one saving session (linux/vfio.h: "saving group"). */
export function isSaving(state: V2State): boolean {
  return isPreCopy(state) || state === V2.STOP_COPY;
}

/** The states that have a data session. */
export function hasSession(state: V2State): boolean {
  return isSaving(state) || state === V2.RESUMING;
}
