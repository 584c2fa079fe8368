import type { MigratableDevice } from '../device/migratable.ts';
import { kindOf, type SimSpec } from './drivers.ts';
import { fillPattern, SIM_STATE_SIZE, type SimMemory } from './memory.ts';

/** A simulated device in the protocol that its driver speaks, and the memory that the guest sees. */
export type Sim = MigratableDevice & { readonly bar: Uint8Array };

/** How many bytes of each kind of memory a device needs; the state memory is always `SIM_STATE_SIZE`. */
export function simMemorySizes(spec: SimSpec): { bar: number; section: number; kept: number } {
  const kind = kindOf(spec);
  const section = kind.protocol === 'v2' ? 0 : kind.sectionSize(spec);
  return { bar: spec.size, section, kept: kind.keptSize?.(spec) ?? 0 };
}

/** Fresh memory in this process, with the pattern of the SPEC's seed. */
export function newSimMemory(spec: SimSpec): SimMemory {
  const sizes = simMemorySizes(spec);
  const bar = new Uint8Array(sizes.bar);
  fillPattern(bar, spec.seed);
  return {
    bar,
    state: new Uint8Array(SIM_STATE_SIZE),
    section: new Uint8Array(sizes.section),
    kept: new Uint8Array(sizes.kept),
  };
}

/** A device of this SPEC over memory that is fresh, or that another object of the same SPEC left behind. */
export function createSim(spec: SimSpec, memory: SimMemory = newSimMemory(spec)): Sim {
  const { bar } = memory;
  const kind = kindOf(spec);
  switch (kind.protocol) {
    case 'v1':
      return { protocol: kind.protocol, device: kind.create(spec, memory), bar };
    case 'v2':
      return { protocol: kind.protocol, device: kind.create(spec, memory), bar };
    default:
      return { protocol: kind.protocol, device: kind.create(spec, memory), bar };
  }
}
