/**
 * The descriptor of an open VFIO device. A front end that stands between a VMM and its device borrows it for the time of a
 * call, so it is asked for anew each time; `number` throws where the device cannot be reached now.
 */
export interface DeviceHandle {
  readonly number: number;
}
