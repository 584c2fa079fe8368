import { createSim, newSimMemory, parseSpec, type SimMemory, type SimSpec } from '../../src/sim/index.ts';
import type { V1Device } from '../../src/v1/device.ts';
import type { V2DataSession, V2Device } from '../../src/v2/device.ts';
import { hasErrno } from '../../src/error.ts';
import { V2, type V2State } from '../../src/v2/states.ts';
import { join } from './bytes.ts';

export interface V2Sim {
  readonly device: V2Device;
  readonly bar: Uint8Array;
  readonly spec: SimSpec;
  readonly memory: SimMemory;
}

export interface V1Sim {
  readonly device: V1Device;
  readonly bar: Uint8Array;
  readonly spec: SimSpec;
  readonly memory: SimMemory;
}

/** A simulated v2 device of this SPEC, on fresh memory or on what another one left behind. */
export function v2Sim(text: string, former?: SimMemory): V2Sim {
  const spec = parseSpec(text);
  const memory = former ?? newSimMemory(spec);
  const sim = createSim(spec, memory);
  if (sim.protocol !== 'v2') throw new Error(`${text} speaks v1`);
  return { device: sim.device, bar: sim.bar, spec, memory };
}

/** A simulated v1 device of this SPEC, on fresh memory or on what another one left behind. */
export function v1Sim(text: string, former?: SimMemory): V1Sim {
  const spec = parseSpec(text);
  const memory = former ?? newSimMemory(spec);
  const sim = createSim(spec, memory);
  if (sim.protocol !== 'v1') throw new Error(`${text} speaks v2`);
  return { device: sim.device, bar: sim.bar, spec, memory };
}

/** A simulated v2 device in a state that begins a data session, and the session. */
export function inSession(
  text: string,
  state: V2State,
  former?: SimMemory,
): V2Sim & { readonly session: V2DataSession } {
  const sim = v2Sim(text, former);
  return { ...sim, session: begun(sim.device, state) };
}

/** The session that a state begins. */
export function begun(device: V2Device, state: V2State): V2DataSession {
  const session = device.setState(state);
  if (session === undefined) throw new Error('no session');
  return session;
}

/** Reads until there is nothing, now or for good: 0 or ENOMSG. */
export function drained(session: V2DataSession | undefined, block = 5000): Uint8Array {
  if (session === undefined) throw new Error('no session');
  const pieces: Uint8Array[] = [];
  for (;;) {
    const into = new Uint8Array(block);
    const length = readOrEnd(session, into);
    if (length === 0) return join(pieces);
    pieces.push(into.subarray(0, length));
  }
}

function readOrEnd(session: V2DataSession, into: Uint8Array): number {
  try {
    return session.read(into);
  } catch (error) {
    if (hasErrno(error, 'ENOMSG')) return 0;
    throw error;
  }
}

/** The whole stream of a device that is stopped and saved. */
export function stateOf(text: string): Uint8Array {
  return drained(inSession(text, V2.STOP_COPY).session);
}
