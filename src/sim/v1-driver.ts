import type { ErrnoName } from '../abi/errno.ts';
import { ShimError } from '../error.ts';
import { V1, v1StateName, type V1State } from '../v1/states.ts';
import type { CommonValues } from './common-options.ts';
import { faultError, Faults, type FaultCounters } from './faults.ts';

/** What each simulated v1 driver keeps first in its state memory. */
export const v1DriverFields = {
  initialized: ['u32', 0],
  device_state: ['u32', 4],
  reads: ['u32', 8],
  writes: ['u32', 12],
  blocked: ['u32', 16],
} as const;

interface State extends FaultCounters {
  initialized: number;
  device_state: number;
}

/** device_state of a simulated v1 driver, and the failures that its SPEC asks for. */
export class V1DriverState {
  readonly #my: State;
  readonly #faults: Faults;

  constructor(asked: Pick<CommonValues, 'fault' | 'block'>, my: State, memory: Uint8Array) {
    this.#my = my;
    this.#faults = new Faults(asked, my, memory);
    if (my.initialized === 1) return;
    my.initialized = 1;
    my.device_state = V1.RUNNING;
  }

  get current(): V1State {
    return this.#my.device_state as V1State;
  }

  set current(state: V1State) {
    this.#my.device_state = state;
  }

  /** Before a state is entered. */
  entering(state: V1State): void {
    this.#strike(this.#faults.beforeEntry(v1StateName(state)));
  }

  /** Before a buffer is made available, or a transaction taken. */
  moving(step: 'read' | 'write'): void {
    this.#strike(this.#faults.beforeData(step));
  }

  #strike(fault: ReturnType<Faults['beforeData']>): void {
    if (fault === undefined) return;
    if (fault.fatal) this.current = V1.ERROR;
    throw faultError(fault);
  }
}

/** How a simulated v1 driver refuses something. */
export function refused(errno: ErrnoName, why: string): ShimError {
  return new ShimError('ERR_DEVICE', `simulated v1 driver: ${why}`, { errno });
}
