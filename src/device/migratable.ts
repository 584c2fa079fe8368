import { V1RegisterAccess } from '../v1/registers.ts';
import type { V1Device } from '../v1/device.ts';
import { V1, v1StateName } from '../v1/states.ts';
import type { Draft, DraftDevice } from '../v1/drafts/device.ts';
import { DraftAccess } from '../v1/drafts/registers.ts';
import { draftStateName, draftStates } from '../v1/drafts/states.ts';
import type { V2Device } from '../v2/device.ts';
import { V2, v2StateName } from '../v2/states.ts';
import { ShimError } from '../error.ts';
import { sleepUntilReady, whenReady, type WaitForDevice } from '../wait.ts';

/** A device in the protocol that its driver speaks, whether the driver is simulated or the kernel's. */
export type MigratableDevice =
  | { readonly protocol: 'v1'; readonly device: V1Device }
  | { readonly protocol: Draft; readonly device: DraftDevice }
  | { readonly protocol: 'v2'; readonly device: V2Device };

/** What a driver speaks. */
export type Protocol = MigratableDevice['protocol'];

/** The name of the state that a device is in, the same names in v1 and v2; `(5)` for one that is none. */
export function stateName(target: MigratableDevice): string {
  try {
    switch (target.protocol) {
      case 'v2':
        return v2StateName(target.device.getState());
      case 'v1':
        return v1StateName(new V1RegisterAccess(target.device).deviceState());
      default:
        return draftStateName(target.protocol, draftAccess(target.device).count('device_state'));
    }
  } catch (error) {
    if (!(error instanceof ShimError) || error.code !== 'ERR_STATE_UNKNOWN') throw error;
    return 'UNKNOWN';
  }
}

/** How long a device that was told to run may say "not yet", in milliseconds, before it is reset. */
const PATIENCE = 5000;

/**
 * Ends a failed procedure: brings the device to RUNNING, by a reset if it does not come there otherwise or if `how` asks for one.
 * Throws if not even a reset helps.
 */
export function recover(target: MigratableDevice, how: 'run' | 'reset'): void {
  if (how === 'run') {
    const end = performance.now() + PATIENCE;
    const patiently: WaitForDevice = () => {
      if (performance.now() > end)
        throw new ShimError('ERR_DEVICE', 'the device is never ready', { errno: 'ETIMEDOUT' });
      sleepUntilReady();
    };
    try {
      run(target, patiently);
      return;
    } catch {
      // reset below
    }
  }
  target.device.reset();
  const state = stateName(target);
  if (state === 'RUNNING') return;
  throw new ShimError('ERR_DEVICE', `after a reset the device is in ${state}`, { errno: 'EIO' });
}

/** Lets a device run. Throws if it is in another state than RUNNING then. */
export function run(target: MigratableDevice, wait: WaitForDevice): void {
  whenReady(() => askToRun(target), wait);
  const state = stateName(target);
  if (state !== 'RUNNING')
    throw new ShimError('ERR_DEVICE', `the device is in ${state}, not RUNNING`, { errno: 'EIO' });
}

function askToRun(target: MigratableDevice): void {
  switch (target.protocol) {
    case 'v2':
      target.device.setState(V2.RUNNING);
      return;
    case 'v1':
      new V1RegisterAccess(target.device).setDeviceState(V1.RUNNING);
      return;
    default:
      draftAccess(target.device).write('device_state', draftStates[target.protocol].RUNNING);
  }
}

function draftAccess(device: DraftDevice): DraftAccess<Draft> {
  return new DraftAccess(device, device.draft);
}

/** Carries a procedure out; if that fails, recovers the device and throws the failure. */
export function recovering(target: MigratableDevice, how: 'run' | 'reset', procedure: () => void): void {
  try {
    procedure();
  } catch (error) {
    try {
      recover(target, how);
    } catch (second) {
      throw unrecovered(error, second);
    }
    throw error;
  }
}

function unrecovered(first: unknown, second: unknown): unknown {
  if (!(first instanceof ShimError) || !(second instanceof Error)) return first;
  const { code, message, errno, syscall } = first;
  const text = `${message}; and the device could not be made to run again: ${second.message}`;
  return new ShimError(code, text, { cause: first, ...(errno && { errno }), ...(syscall && { syscall }) });
}
