export type { V1Device } from './device.ts';
export { V1RegisterAccess } from './registers.ts';
export { DATA_OFFSET, V1Region, type V1DataSection, type V1RegisterName, type V1Registers } from './region.ts';
export { V1Restore } from './restore.ts';
export { V1Save, type V1Sink } from './save.ts';
export {
  isV1State,
  isV1Transition,
  V1,
  v1StateName,
  withoutReserved,
  type V1State,
  type V1StateName,
} from './states.ts';
