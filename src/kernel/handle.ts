/**
 * The descriptor of an open VFIO device. A front end between a VMM and its device borrows it for the time of a call, so whoever
 * needs the number asks for it each time; `number` throws if the device cannot be reached now.
 */
export interface DeviceHandle {
  readonly number: number;
}
