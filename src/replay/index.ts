export { replayable, replayDevice, type DeviceReplay } from './replay.ts';
export { type Replayable, type ReplayOptions, type UsedDevice } from './replay.ts';
