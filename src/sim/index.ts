export { createSim, newSimMemory, simMemorySizes, type Sim } from './create.ts';
export { DRIVERS, kindOf, type DriverName, type SimSpec } from './drivers.ts';
export type { DraftKind, DriverKind, V1Kind, V2Kind } from './driver-kind.ts';
export type { Fault } from './fault.ts';
export { fillPattern, SIM_STATE_SIZE, type SimMemory } from './memory.ts';
export { barSize, pciConfig } from './pci.ts';
export { parseSize } from './size.ts';
export { formatSpec, parseSpec } from './spec.ts';
export { specHelp } from './spec-help.ts';
