export { createSim, newSimMemory, type Sim } from './create.ts';
export { fillPattern, SIM_STATE_SIZE, simMemorySizes, type SimMemory } from './memory.ts';
export { barSize, pciConfig } from './pci.ts';
export { DRIVERS, parseSize, parseSpec, specHelp, type DriverName, type Fault, type SimSpec } from './spec.ts';
