export type { Warn } from './warn.ts';
export { PRESENT_V1_STATE_SIZE } from './present-v1-state.ts';
export { presentV1, type PresentV1Options } from './present-v1.ts';
export { PRESENT_V2_STATE_SIZE } from './present-v2-state.ts';
export { presentV2, type PresentV2Options } from './present-v2.ts';
