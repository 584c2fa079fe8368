import type { MigratableDevice } from '../device/migratable.ts';
import { storeOf, type ByteStore } from './byte-store.ts';
import type { SimWarn } from './driver-kind.ts';
import { kindOf, type SimSpec } from './drivers.ts';
import { fillPattern, SIM_STATE_SIZE, type SimMemory } from './memory.ts';

/** A simulated device in the protocol that its driver speaks, and the memory that the guest sees. */
export type Sim = MigratableDevice & {
  /** In one piece. Throws if it is larger than Node maps. */
  readonly bar: Uint8Array;
  /** The same in pieces, however large it is. */
  readonly guest: ByteStore;
};

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
  fillPattern(storeOf(bar), spec.seed);
  return {
    bar,
    state: new Uint8Array(SIM_STATE_SIZE),
    section: new Uint8Array(sizes.section),
    kept: new Uint8Array(sizes.kept),
  };
}

/** A device of this SPEC over memory that is fresh, or that another object of the same SPEC left behind. */
export function createSim(spec: SimSpec, memory: SimMemory = newSimMemory(spec), warn?: SimWarn): Sim {
  const guest = memory.pieces?.bar ?? storeOf(memory.bar);
  return {
    ...deviceOf(spec, memory, warn),
    guest,
    get bar() {
      if (memory.pieces !== undefined) throw new RangeError('the memory of this device is not mapped, it is in pieces');
      return memory.bar;
    },
  };
}

function deviceOf(spec: SimSpec, memory: SimMemory, warn: SimWarn | undefined): MigratableDevice {
  const kind = kindOf(spec);
  switch (kind.protocol) {
    case 'v1':
      return { protocol: kind.protocol, device: kind.create(spec, memory, warn) };
    case 'v2':
      return { protocol: kind.protocol, device: kind.create(spec, memory, warn) };
    default:
      return { protocol: kind.protocol, device: kind.create(spec, memory, warn) };
  }
}
