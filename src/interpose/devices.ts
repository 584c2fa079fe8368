import type { DriverName } from '../sim/drivers.ts';
import type { Answers } from '../sys/seccomp.ts';
import type { Call } from './call.ts';
import type { Ledger } from './journal.ts';
import type { DeviceReport } from './report.ts';
import type { ServedDevice } from './served-device.ts';

/** The devices of a run, of one kind or the other. Each has a place, which is also its place in the window of offsets. */
export interface Devices {
  at(place: number): ServedDevice | undefined;
  /** The device whose data fd has this inode. */
  withDataFd(inode: number): ServedDevice | undefined;
  /** Everything that is committed, each by itself. */
  ledgers(): readonly Ledger[];
  reports(): DeviceReport[];
  /** Simulated drivers with which to rehearse what serves these devices; none once a migration has begun. */
  understudies(): readonly DriverName[];
  /** A trapped ioctl that is not one of a data fd: its result, CONTINUE or ANSWERED. */
  ioctl(call: Call, command: number): number;
  /** A trapped openat or open. */
  open(call: Call): number;
}

/** What devices may ask of whoever routes calls to them. */
export interface DevicesHost {
  readonly listener: Answers;
  /** What the call changes, to be committed with its result. */
  touch(ledger: Ledger): void;
  /** Gives the target a data fd for a session that has begun on a device; `tell` gets its number there, before the target has it. */
  openDataFd(call: Call, device: ServedDevice, resuming: boolean, tell: (fd: number) => void): void;
}
