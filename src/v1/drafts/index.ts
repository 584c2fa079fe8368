export { readDirtyPages, type DirtySink, type PageRange } from './dirty.ts';
export type { Draft, DraftDevice } from './device.ts';
export { DraftRegion, type DraftRegisters } from './region.ts';
export { DraftAccess, type DraftRegister, type Register2018, type Register2019, type RegisterOf } from './registers.ts';
export { DraftRestore } from './restore.ts';
export { Draft2018Save } from './save-2018.ts';
export { Draft2019Save } from './save-2019.ts';
export { draftStateName, is2018Transition, S2018, S2019, type State2018, type State2019 } from './states.ts';
