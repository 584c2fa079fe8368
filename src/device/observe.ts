import type { DeviceEvent } from './device-event.ts';
import type { MigratableDevice } from './migratable.ts';
import { ObservedDraft, ObservedV1 } from './observed-region.ts';
import { ObservedV2 } from './observed-v2.ts';

/**
 * Is told of each call on a device, after it has ended and before its caller knows. It must not throw. `bytes`: the migration data that
 * a call has moved, which lie there for as long as the sink is called.
 */
export type DeviceSink = (event: DeviceEvent, bytes?: Uint8Array) => void;

type In<P> = Extract<MigratableDevice, { readonly protocol: P }>;

/** The monotonic clock of the events: of the system, so that events of several processes can be compared. */
export function microseconds(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

/** For a sink that does not look at the time: it is 0, and costs nothing. */
export function untimed(): number {
  return 0;
}

/**
 * The same device, with each call on it told to `sink`: those on the data sessions that it gives, too. The device's fields are no
 * calls, nor is memory that is mapped. `clock` gives the events their time, which takes half of what an event costs (0.1 microseconds).
 */
export function observe(target: In<'v1'>, sink: DeviceSink, clock?: () => number): In<'v1'>;
export function observe(target: In<'v2'>, sink: DeviceSink, clock?: () => number): In<'v2'>;
export function observe(target: MigratableDevice, sink: DeviceSink, clock?: () => number): MigratableDevice;
export function observe(target: MigratableDevice, sink: DeviceSink, clock = microseconds): MigratableDevice {
  switch (target.protocol) {
    case 'v1':
      return { protocol: 'v1', device: new ObservedV1(target.device, sink, clock) };
    case 'v2':
      return { protocol: 'v2', device: new ObservedV2(target.device, sink, clock) };
    default:
      return { protocol: target.protocol, device: new ObservedDraft(target.device, sink, clock) };
  }
}
