import { ShimError } from '../error.ts';
import type { CommonValues } from './common-options.ts';
import { STEPS, type Fault } from './fault.ts';
import { SIM_STATE_SIZE } from './memory.ts';

/** The counters behind faults, in the device's own state memory. */
export interface FaultCounters {
  reads: number;
  writes: number;
  blocked: number;
}

/** At the end of the state memory: how often each state was entered, a u32 each, in the order of `STEPS`. */
const ENTRIES_SIZE = 4 * STEPS.length;
const ENTRIES_OFFSET = SIM_STATE_SIZE - ENTRIES_SIZE;

/** Fails the operations that a SPEC names, counts them in memory that survives a change of process. */
export class Faults {
  readonly #asked: Pick<CommonValues, 'fault' | 'block'>;
  readonly #counters: FaultCounters;
  readonly #entries: DataView;

  constructor(asked: Pick<CommonValues, 'fault' | 'block'>, counters: FaultCounters, state: Uint8Array) {
    this.#asked = asked;
    this.#counters = counters;
    this.#entries = new DataView(state.buffer, state.byteOffset + ENTRIES_OFFSET, ENTRIES_SIZE);
  }

  /** Before a read or write of data: says "not yet" as often as asked for, then counts the operation and may fail it. */
  beforeData(step: 'read' | 'write'): Fault | undefined {
    const counters = this.#counters;
    if (counters.blocked < this.#asked.block) {
      counters.blocked += 1;
      throw new ShimError('ERR_NO_DATA_YET', `data fd: ${step} would block`, { errno: 'EAGAIN' });
    }
    counters.blocked = 0;
    const nth = step === 'read' ? (counters.reads += 1) : (counters.writes += 1);
    return this.#asked.fault.find((fault) => fault.step === step && fault.nth === nth);
  }

  /** Before a state is entered: counts the entry and may fail it. */
  beforeEntry(state: string): Fault | undefined {
    const at = 4 * STEPS.indexOf(state);
    if (at < 0) return undefined; // ERROR, which nobody asks for
    const nth = this.#entries.getUint32(at, true) + 1;
    this.#entries.setUint32(at, nth, true);
    return this.#asked.fault.find((fault) => fault.step === state && fault.nth === nth);
  }
}

export function faultError(fault: Fault): ShimError {
  const code = fault.errno === 'EAGAIN' ? 'ERR_NO_DATA_YET' : 'ERR_DEVICE';
  return new ShimError(code, `simulated fault: ${fault.step} number ${fault.nth} fails with ${fault.errno}`, {
    errno: fault.errno,
  });
}
