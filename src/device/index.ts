export { DEVICE_EVENTS_VERSION, isChange, stateIn } from './device-event.ts';
export type { DeviceEvent, Direction, V1Event, V2Event } from './device-event.ts';
export type { MigratableDevice } from './migratable.ts';
export { microseconds, observe, untimed, type DeviceSink } from './observe.ts';
