import type { ErrnoName } from '../abi/errno.ts';
import type { DeviceEvent, Direction } from '../device/device-event.ts';
import type { Protocol } from '../device/migratable.ts';

/** What the first line of a recording says it is. */
export const RECORDING_FORMAT = 'vfio-shim recording';
/** New fields leave it as it is, and readers pass over them; a field that is gone, or means something else, raises it. */
export const RECORDING_VERSION = 1;

/** Bytes of a recording from which on nothing more is recorded, unless it is said otherwise. */
export const DEFAULT_RECORDING_LIMIT = 256 * 2 ** 20;

/** No line of a recording is longer, in bytes. */
export const MAX_LINE = 2 ** 20;
/** How many calls on drivers a line lists; the others are counted. */
export const MAX_DRIVER_CALLS = 256;

/** A line of a recording. Times are whole microseconds of `CLOCK_MONOTONIC`, sizes are bytes. */
export type RecordingLine =
  | RecordingHeader
  | AccessLine
  | DriverLine
  | OpenedLine
  | ClosedLine
  | TakeoverLine
  | EndLine;

/** The first line. `realtime` and `monotonic` are one moment, by which recordings of several hosts are put side by side. */
export interface RecordingHeader {
  readonly kind: 'recording';
  readonly format: typeof RECORDING_FORMAT;
  readonly version: number;
  /** The version of vfio-shim that recorded. */
  readonly program: string;
  readonly command: 'run' | 'save' | 'restore' | 'serve' | 'proxy';
  /** Microseconds since 1970, UTC. */
  readonly realtime: number;
  /** Microseconds of `CLOCK_MONOTONIC`, as all other times. */
  readonly monotonic: number;
  /** Its name, as uname(2) says it. */
  readonly host: string;
  /** What `run` or `proxy` presents; null if it was another command. */
  readonly present: string | null;
  /** Those that are known beforehand. Of the kernel's, `opened` tells. */
  readonly devices: readonly RecordedDevice[];
  /** The options of the command that change what is recorded, by their long names. */
  readonly options: Readonly<Record<string, string | number | boolean>>;
}

/** True if what was recorded is what a VMM did, and not what a command of the package has done with a device by itself. */
export function isOfVmm({ command }: Pick<RecordingHeader, 'command'>): boolean {
  return command !== 'save' && command !== 'restore';
}

/** A device as the header of a recording has it. */
export interface RecordedDevice {
  /** As other lines name it: a PCI address, or a UUID. */
  readonly name: string;
  /** What it is: of an emulated device its SPEC. */
  readonly device: string;
  readonly protocol: Protocol;
}

/** One access of the VMM, from when it was received until it was answered, however often it was tried meanwhile. */
export interface AccessLine extends Answered {
  readonly kind: 'access';
  /** When it was received. */
  readonly begin: number;
  /** How long it took. */
  readonly us: number;
  /** The process; null if it was gone before it could be told. Of a client of vfio-user, the one that has connected. */
  readonly pid: number | null;
  /** The thread; of a client of vfio-user the process again. */
  readonly tid: number;
  /** What was accessed: a device; or the container or a group, by its path. */
  readonly device?: string;
  readonly node?: string;
  readonly call: RecordedCall;
  /** The device said "not yet" so often, and the access was tried again. */
  readonly retries?: number;
  /** A supervisor that was killed had begun it: what that one asked of drivers is not told. */
  readonly again?: true;
  /** Migration data that the VMM has got or given with this access, counted as in the report of `run --json`. */
  readonly moved?: Moved;
  /** The bytes of the migration data that passed with this access. */
  readonly data?: DataBytes;
  /** Of a read of migration data by vfio-user, how many bytes were asked for: a reply with less is the end of the data in STOP_COPY. */
  readonly asked?: number;
  /** What was asked of drivers for it, in order. */
  readonly driver?: readonly DriverCall[];
  /** How many more. */
  readonly driverOmitted?: number;
}

/** What the caller got. */
interface Answered {
  /** The call's value; `fd` is a descriptor, `address` one of the caller's memory. */
  readonly result?: number | 'fd' | 'address';
  readonly errno?: ErrnoName;
}

/** Migration data that has passed: how many bytes, and which way. */
export interface Moved {
  readonly direction: Direction;
  readonly bytes: number;
}

/** The migration data of one line: how much, and what it was. */
export interface DataBytes {
  readonly bytes: number;
  /** Hexadecimal. */
  readonly sha256: string;
  /** Where they begin in the file of `--record-data`. */
  readonly at?: number;
}

type WithoutTime<T> = T extends unknown ? Omit<T, 'time'> : never;

/** A call on a device, as `observe` tells it (device/device-event.ts), and by name the state that a device_state means. */
export type DeviceCall = WithoutTime<DeviceEvent> & { readonly state?: string };

/** What a VMM asks that is no migration by itself, or was refused before it came to be. */
export interface VfioCall {
  readonly protocol: 'vfio';
  /** The system call; `message` if it came by vfio-user. */
  readonly call: string;
  /** Of an ioctl, `VFIO_*`, or its number in hexadecimal; of a message its command, `VFIO_USER_*`. */
  readonly request?: string;
  /** Of `VFIO_DEVICE_FEATURE`, and the message that is the same: what is asked for (`PROBE`, `GET`, `SET`), and the feature without its prefix. */
  readonly feature?: string;
  /** Of an access to a region that is no migration region: `config`, `BAR2`, or its number. */
  readonly region?: string;
  /** Where in the region, and how much. */
  readonly offset?: number;
  readonly bytes?: number;
  /** What was read or written there, if it is 8 bytes at most: a little-endian number, in hexadecimal. */
  readonly data?: string;
}

/** What a VMM has asked: a call on a device, or another request to VFIO. */
export type RecordedCall = DeviceCall | VfioCall;

/** A call on a driver, made for an access: told when it ended. */
export type DriverCall = DeviceCall & {
  readonly time: number;
  /** If it is not the device that was accessed. */
  readonly device?: string;
  /** It was made so often in a row, each time with this answer. */
  readonly times?: number;
};

/** A call on a driver that no access waits for: what is read ahead, and all of `save` and `restore`. */
export interface DriverLine {
  readonly kind: 'driver';
  readonly time: number;
  readonly device: string;
  readonly call: DeviceCall;
  readonly data?: DataBytes;
}

/** A user gets a device; one of the kernel is seen for the first time. */
export interface OpenedLine extends RecordedOpening {
  readonly kind: 'opened';
  readonly time: number;
}

interface RecordedOpening {
  readonly device: string;
  readonly protocol: Protocol;
  readonly pid: number | null;
  readonly tid: number;
}

/** A device of the kernel is seen to have been closed, or a client of vfio-user has gone. */
export interface ClosedLine {
  readonly kind: 'closed';
  readonly time: number;
  readonly device: string;
}

/** A supervisor died, and another is started in its place. */
export interface TakeoverLine {
  readonly kind: 'takeover';
  readonly time: number;
  /** How it died. */
  readonly why: string;
}

/** The last line: the recorded has `ended`, the `limit` was reached, or lines were `lost`, as nobody took them in time. */
export interface EndLine {
  readonly kind: 'end';
  readonly time: number;
  readonly why: 'ended' | 'limit' | 'lost';
}
