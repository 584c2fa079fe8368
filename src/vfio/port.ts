import type { V2DataSession } from '../v2/device.ts';
import type { V2State } from '../v2/states.ts';

/**
 * A device as VFIO shows it to whoever asks, apart from what carries the requests: a descriptor of the kernel's, messages on a socket,
 * a test's bytes. (QEMU: struct VFIODeviceIOOps, include/hw/vfio/vfio-device.h.)
 *
 * Requests are the structs of linux/vfio.h. A carrier fills them in where they lie, as ioctl(2) does. It throws a `ShimError` with the
 * errno that the device has answered.
 */
export interface VfioPort {
  /** `VFIO_DEVICE_GET_INFO`, with a `struct vfio_device_info`. */
  getInfo(argument: Uint8Array): void;
  /** `VFIO_DEVICE_GET_REGION_INFO`, with a `struct vfio_region_info` and room for the capabilities that `argsz` says. */
  getRegionInfo(argument: Uint8Array): void;
  /** `VFIO_DEVICE_FEATURE`, with a `struct vfio_device_feature` and its data. `what` tells people what is asked for. */
  feature(what: string, argument: Uint8Array, pointed?: Pointed): void;
  /** `VFIO_DEVICE_RESET`. */
  reset(): void;
  /** Reads at most `into.length` bytes, `at` bytes into a region, and returns how many. */
  read(region: RegionPlace, at: number, into: Uint8Array): number;
  /** Writes at most `from.length` bytes, and returns how many. */
  write(region: RegionPlace, at: number, from: Uint8Array): number;
  /** Bytes of a page, by which memory is mapped: `at` and `size` are whole ones. */
  readonly pageSize: number;
  /** Memory that is shared with the device, if the carrier can share any. It stays until this process ends. */
  map?(region: RegionPlace, at: number, size: number): Uint8Array;
  /** The same, for as long as `use` takes: for who may not keep the device open. The bytes are gone afterwards. */
  withMap?(region: RegionPlace, at: number, size: number, use: (bytes: Uint8Array) => void): void;
  readonly sessions: DataSessions;
}

/** Which region is meant: messages name it by its index, a descriptor by the offset that the driver has chosen. */
export interface RegionPlace {
  readonly index: number;
  readonly offset: bigint;
}

/** Bytes that a struct points to: a descriptor's carrier puts their address into the argument, others send them along. */
export interface Pointed {
  /** Where in the argument the pointer is, a u64. */
  readonly at: number;
  readonly bytes: Uint8Array;
}

/**
 * What the data of a migration goes through, which is the carrier's own: the kernel gives a descriptor, which may outlive the process
 * that asked for it; in messages it is the device itself.
 */
export interface DataSessions {
  /** Makes a request that may begin or end a session, and notes that it is under way, for a successor of this process. */
  change<T>(request: () => T): T;
  /** A session has begun: the answer said `data_fd`. The one before it ends. */
  begin(data_fd: number): V2DataSession;
  /** The session that goes on, if one does. `state` asks the device for its state. */
  current(state: () => V2State): V2DataSession | undefined;
  /** The device is in a state without a session. */
  end(): void;
}
