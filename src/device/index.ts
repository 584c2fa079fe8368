export { DEVICE_EVENTS_VERSION, isChange, stateIn } from './device-event.ts';
export type { DeviceEvent, Direction, DraftEvent, RegionEvent, V1Event, V2Event } from './device-event.ts';
export type { MigratableDevice, Protocol } from './migratable.ts';
export { microseconds, observe, untimed, type DeviceSink } from './observe.ts';
