import type { Call } from '../trap/call.ts';
import type { DriverName } from '../../sim/drivers.ts';
import type { FileOwner } from './descriptor.ts';
import type { DeviceReport } from './report.ts';
import type { ServedDevice } from './served-device.ts';
import type { Turn } from '../memory/turn.ts';

/** Calls on a device's own regions, by the region's index, this far in. What is refused throws. */
export interface OwnRegions {
  /** They return how many bytes, or CONTINUE. */
  read(turn: Turn, region: number, offset: number): number;
  write(turn: Turn, region: number, offset: number): number;
  /** mmap: what is not refused is the kernel's to do. */
  checkMap(call: Call, region: number, offset: number): void;
}

/** The devices of a run, of one kind or the other. Each has a place, which is also its place in the window of offsets. */
export interface Devices extends FileOwner {
  at(place: number): ServedDevice | undefined;
  reports(): DeviceReport[];
  /** Simulated drivers with which to rehearse what serves these devices; none once a migration has begun. */
  rehearsalDrivers(): readonly DriverName[];
  /** A trapped ioctl that is not one of a data fd: its result, CONTINUE or ANSWERED. */
  ioctl(turn: Turn, command: number): number;
  /** A trapped openat or open. */
  open(turn: Turn): number;
  /** A trapped call of the stat and access families, which only emulated nodes have. */
  look?(call: Call): number;
  /** The own regions of the device in a place, if they are here. */
  regionsOf?(place: number): OwnRegions | undefined;
  /** What devices do without being called. Returns when there is more of it, in the milliseconds of performance.now(): never, if infinite. */
  work(): number;
  /** Readable once there is work to be done at once; -1 if nothing is to be waited for so. */
  readonly wakeFd?: number;
}
