import type { MigratableDevice } from '../device/migratable.ts';
import { V1Region } from '../v1/region.ts';
import { blockDriver } from './block-driver.ts';
import { fillPattern, SIM_STATE_SIZE, simMemorySizes, type SimEvents, type SimMemory } from './memory.ts';
import { mttyDriver } from './mtty.ts';
import type { SimSpec } from './spec.ts';
import { SimV2Device } from './v2-device.ts';
import { VendorV1 } from './vendor-v1-device.ts';

/** A simulated device: one of the two protocols, and the memory that the guest sees. */
export type Sim = MigratableDevice & { readonly bar: Uint8Array };

/** Fresh memory in this process, with the pattern of the SPEC's seed. */
export function newSimMemory(spec: SimSpec): SimMemory {
  const sizes = simMemorySizes(spec);
  const bar = new Uint8Array(sizes.bar);
  fillPattern(bar, spec.seed);
  return {
    bar,
    state: new Uint8Array(SIM_STATE_SIZE),
    section: new Uint8Array(sizes.section),
    sent: new Uint8Array(sizes.sent),
  };
}

/** A device of this SPEC over memory that is fresh, or that another object of the same SPEC left behind. */
export function createSim(spec: SimSpec, memory: SimMemory = newSimMemory(spec), events: SimEvents = {}): Sim {
  const { bar } = memory;
  switch (spec.driver) {
    case 'vendor-v1':
      return { protocol: 'v1', device: new V1Region(new VendorV1(spec, memory, events), memory.section), bar };
    case 'mtty':
      return { protocol: 'v2', device: new SimV2Device(spec, mttyDriver(spec, memory), memory), bar };
    case 'qat':
    case 'pds':
    case 'hisi':
      return { protocol: 'v2', device: new SimV2Device(spec, blockDriver(spec, memory), memory), bar };
  }
}
