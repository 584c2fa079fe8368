import type { DeviceEvent } from '../device/device-event.ts';
import { MAX_DRIVER_CALLS } from './format.ts';
import { isSameCall } from './line.ts';

/** Calls on a driver in a row that had the same answer. */
export interface DriverCalls {
  readonly device: string;
  readonly first: DeviceEvent;
  times: number;
}

/** Notes a call on a driver behind those of the same access; false if a line has no room for more. */
export function addDriverCall(calls: DriverCalls[], device: string, event: DeviceEvent): boolean {
  const last = calls.at(-1);
  if (last?.device === device && isSameCall(last.first, event)) {
    last.times += 1;
    return true;
  }
  if (calls.length === MAX_DRIVER_CALLS) return false;
  calls.push({ device, first: event, times: 1 });
  return true;
}
