import type { Protocol } from '../../device/migratable.ts';
import type { V1Habits } from '../../bridge/state-map.ts';
import type { RecordingHeader } from '../../recording/format.ts';
import type { SimSpec } from '../../sim/drivers.ts';
import type { Draft } from '../../v1/drafts/device.ts';

/** Everything that launcher, keeper and supervisor have to agree on. It travels as JSON. */
export interface Plan {
  /** The devices that are emulated. If there are none, the devices of the kernel that the target opens are bridged. */
  readonly devices: readonly PlannedDevice[];
  /** Bytes of the v1 region's data section of a device of the kernel. */
  readonly dataSection: number;
  /** Which protocol's interface the devices show; `auto` is v1 and v2, and the VMM takes the one it knows. */
  readonly present: 'v1' | 'v2' | 'auto' | Draft;
  /** Each device is presented in the other protocol and back. */
  readonly roundTrip: boolean;
  readonly segmentation: 'raw' | 'framed';
  /** A v1 device that is presented in v2 offers P2P. */
  readonly offerP2P: boolean;
  /** A v2 device that is presented in v1 counts in pre-copy what stop-and-copy will cost. */
  readonly countStopCopy: boolean;
  /** In bytes. */
  readonly holdPrecopy: number;
  /** Where the stand-in data fds of presented v2 devices are put in the target; none if v2 is not presented. */
  readonly dataFds: FdWindow | undefined;
  /** Devices that a v1 VMM stops and starts one by one are brought to their P2P states together; v1 devices that offer P2P stop together. */
  readonly p2p: boolean;
  /** A VMM that asks a container of the kernel for dirty pages is told what v2 drivers have logged. */
  readonly dirtyPages: boolean;
  /** There are /dev/iommu and a node for each emulated device besides groups, and whoever looks at a file is told of them. */
  readonly iommufd?: boolean;
  /** Whoever lists /dev/vfio, on a host that has none, sees what is emulated there. */
  readonly lists?: boolean;
  readonly onError: 'reset' | 'report';
  /** What is known of v1 drivers that are presented in v2. */
  readonly v1: V1Habits;
  /** The name of the file to which keeper and supervisor log, if it is a file with a name. */
  readonly log: string | undefined;
  /** None if nothing is recorded. */
  readonly recording: PlannedRecording | undefined;
  /** The socket at which the keeper says how far migrations are, if there is to be one. */
  readonly status: PlannedStatus | undefined;
  readonly fds: PlannedFds;
  /** The file that was the target's stderr when it was launched. */
  readonly stderr: FileIdentity;
  /** The supervisor logs what devices go through. */
  readonly verbose: boolean;
  /** The directory of the sysfsdev directories; a fresh one is ours, and removed at the end. None without devices. */
  readonly sysfs: { readonly path: string; readonly fresh: boolean } | undefined;
}

/** What is recorded, if the plan names files for it, or it is judged. */
export interface PlannedRecording {
  readonly header: RecordingHeader;
  /** Bytes of a file from which on nothing more is recorded. */
  readonly limit: number;
  /** The keeper judges the VMM by it, and says what it has found to the file for reports. */
  readonly isJudged: boolean;
}

/** The file of a socket that listens, which the keeper removes, and the protocols of the plan's devices. */
export interface PlannedStatus {
  readonly path: string;
  readonly identity: string;
  readonly protocols: readonly Protocol[];
}

/** Descriptors that a plan names, by the numbers of the process that reads it. */
export interface PlannedFds {
  /** A pidfd of the target. */
  readonly target: number;
  /** The file to which the supervisor writes one line of JSON per device at the end, and the keeper what it has found, if any. */
  readonly report: number | undefined;
  /** What keeper and supervisor log to, if it is no file with a name; without either they log to the target's stderr. */
  readonly log: number | undefined;
  /** The file of the recording. */
  readonly record: number | undefined;
  /** The file that gets the migration data of the recording. */
  readonly recordData: number | undefined;
  /** The file that gets the recording for people. */
  readonly trace: number | undefined;
  /** The socket at which the keeper answers. */
  readonly status: number | undefined;
  /** Of a recording: by a byte here the supervisor wakes the keeper, which writes it down. */
  readonly wake: number | undefined;
  /**
   * With -v and without a log: the launcher's stderr, for what is to be said when the target has ended and has none any more. The
   * first supervisor alone keeps it, and no longer than the process lives that was launched.
   */
  readonly lastWords: number | undefined;
}

/** Which file one is, as of stat(2). */
export interface FileIdentity {
  readonly dev: number;
  readonly ino: number;
}

/** What the launcher is asked for: it adds what it knows of the process that becomes the target. */
export type Order = Omit<Plan, 'fds' | 'stderr'> & { readonly fds: Omit<PlannedFds, 'target' | 'lastWords' | 'wake'> };

/** True if they log elsewhere than to the target's stderr. */
export function hasLog({ log, fds }: Order): boolean {
  return log !== undefined || fds.log !== undefined;
}

/** A range of descriptor numbers, both ends included. */
export interface FdWindow {
  readonly first: number;
  readonly last: number;
}

export interface PlannedDevice {
  readonly text: string;
  readonly spec: SimSpec;
  /** PCI address, as in sysfs and as the argument of VFIO_GROUP_GET_DEVICE_FD. */
  readonly name: string;
  readonly group: number;
  /** Bytes of the memory of the migration region's data section: for a v1 driver, whole pages of any host. */
  readonly dataSection: number;
  /** Bytes of the device file that the supervisor maps as BAR0, and of what the driver keeps besides. */
  readonly bar: number;
  readonly kept: number;
}

export const MAX_EMULATED = 64;

export function groupPath(device: Pick<PlannedDevice, 'group'>): string {
  return `/dev/vfio/${device.group}`;
}

/** How many devices of the kernel can be bridged at once. */
export const BRIDGED = 32;

/** How many containers of the kernel are told apart. */
export const CONTAINERS = 8;

/** How many devices a run has places for. */
export function placesOf(plan: Pick<Plan, 'devices'>): number {
  return plan.devices.length === 0 ? BRIDGED : plan.devices.length;
}

/** Exit status of a supervisor that could not begin. */
export const CANNOT_BEGIN = 70;

/** The socket through which the launcher sends the keeper the listener; what the plan names comes behind it. */
export const LAUNCHER_FD = 3;

/** The plan for a process that is handed its descriptors from number `first` on, and these descriptors. */
export function handOn(plan: Plan, first: number): { readonly plan: Plan; readonly fds: readonly number[] } {
  const fds: number[] = [];
  const moved = Object.entries(plan.fds).map(([name, fd]: [string, number | undefined]) => [
    name,
    fd === undefined ? undefined : first + fds.push(fd) - 1,
  ]);
  return { plan: { ...plan, fds: Object.fromEntries(moved) as PlannedFds }, fds };
}

/** The plan that another process of this package passed as its argument. */
export function parsePlan(text: string | undefined): Plan {
  if (text === undefined) throw new Error('this program is started by vfio-shim run, not by hand');
  return JSON.parse(text) as Plan;
}
