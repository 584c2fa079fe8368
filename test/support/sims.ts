import { createSim, newSimMemory, parseSpec, type SimMemory, type SimSpec } from '../../src/sim/index.ts';
import type { V1Device } from '../../src/v1/device.ts';
import type { V2Device } from '../../src/v2/device.ts';

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
