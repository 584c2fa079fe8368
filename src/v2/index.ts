export type { PrecopyInfo, V2DataSession, V2Device } from './device.ts';
export { hasState, nextState, statePath } from './fsm.ts';
export { V2Restore } from './restore.ts';
export { V2Save, type Sink } from './save.ts';
export { V2StateMachine, type V2Registers, type V2SessionKind } from './state-machine.ts';
export {
  isPreCopy,
  isSaving,
  isV2State,
  parseV2State,
  V2,
  v2StateName,
  type V2State,
  type V2StateName,
} from './states.ts';
