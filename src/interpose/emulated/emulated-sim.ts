import { fillTape } from '../../recorded/recorded-spec.ts';
import { createSim, type Sim } from '../../sim/create.ts';
import { kindOf } from '../../sim/drivers.ts';
import { storeOf } from '../../sim/byte-store.ts';
import { fillPattern, type SimMemory } from '../../sim/memory.ts';
import { mapSharedMemory, SharedStore } from '../../sys/memory.ts';
import type { DeviceFiles } from '../memory/inherited.ts';
import type { PlannedDevice } from '../run/plan.ts';
import { BAR0_OFFSET } from '../run/window.ts';
import type { PciConfig } from './pci-config.ts';

/** The files in which the memory of a simulated device lies that its guest sees, and what its driver keeps. */
type SimFiles = Pick<DeviceFiles, 'device' | 'kept'>;

interface SimParts extends Pick<SimMemory, 'state' | 'section'> {
  readonly config: PciConfig;
  /** The memory has never been used. */
  readonly isFresh: boolean;
  readonly warn: (message: string) => void;
}

/** The simulated device, over memory that is filled if it is fresh. */
export function emulatedSim(plan: PlannedDevice, files: SimFiles, parts: SimParts): Sim {
  const { name, spec } = plan;
  const { state, section, warn } = parts;
  const guest = new SharedStore(files.device, spec.size, BAR0_OFFSET);
  const memory = kindOf(spec).takesPieces === true ? inPieces(guest, files, plan) : mapped(files, plan);
  if (parts.isFresh) {
    // through the mapping, if there is one: the pages are in place when the first migration begins
    fillPattern(memory.pieces?.bar ?? storeOf(memory.bar), spec.seed);
    parts.config.begin();
    if (spec.driver === 'recording') fillTape(spec, memory.kept);
  }
  return createSim(spec, { ...memory, state, section }, (message) => warn(`${name}: ${message}`));
}

type Memory = Pick<SimMemory, 'bar' | 'kept' | 'pieces'>;

function mapped(files: SimFiles, { bar, kept, spec }: PlannedDevice): Memory {
  return {
    bar: mapSharedMemory(files.device, bar, BAR0_OFFSET).bytes.subarray(0, spec.size),
    kept: kept > 0 ? mapSharedMemory(files.kept, kept).bytes : new Uint8Array(0),
  };
}

/** Nothing of it becomes part of this process, however much there is. */
function inPieces(guest: SharedStore, files: SimFiles, { kept }: PlannedDevice): Memory {
  const none = new Uint8Array(0);
  return { bar: none, kept: none, pieces: { bar: guest, kept: new SharedStore(files.kept, kept) } };
}
