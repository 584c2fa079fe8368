import type { ErrnoName } from '../abi/errno.ts';
import type { V1RegisterName } from '../v1/region.ts';
import type { Draft } from '../v1/drafts/device.ts';
import type { DraftRegister } from '../v1/drafts/registers.ts';
import { draftStateName } from '../v1/drafts/states.ts';
import { v1StateName, withoutReserved } from '../v1/states.ts';

/** The version of `DeviceEvent`. New fields and calls leave it as it is; one that is gone, or means something else, raises it. */
export const DEVICE_EVENTS_VERSION = 1;

/** One call on a device, in the protocol that it is spoken to, told when the call has ended. */
export type DeviceEvent = V1Event | V2Event | DraftEvent;

interface Told<P extends 'v1' | 'v2' | Draft> {
  /** When the call ended, in microseconds of a monotonic clock (clock_gettime(2): `CLOCK_MONOTONIC`). */
  readonly time: number;
  readonly protocol: P;
}

/** How a call that returns nothing has ended. */
interface Ended {
  /** Why it failed, `EIO` if the failure has no errno. "Not yet" is `EAGAIN`: the caller repeats the call, and each is told. */
  readonly errno?: ErrnoName;
}

/** What a call has returned, or the errno. */
type Returned<R> = (R & { readonly errno?: never }) | ({ readonly [K in keyof R]?: never } & Required<Ended>);

/** `out`: migration data leaves the device. `in`: it comes into it. */
export type Direction = 'out' | 'in';

/** `struct vfio_device_migration_info` (linux/vfio.h, 5.8 to 5.17) and the data section. */
export type V1Event = RegionEvent<'v1', V1RegisterName>;

/** The struct of the same name as the drafts have it (abi/vfio-drafts.ts), and the data section. */
export type DraftEvent = RegionEvent<Draft, DraftRegister>;

/** Accesses to a migration region. Data that goes through mapped memory is no call: the registers say how much it is. */
export type RegionEvent<P extends 'v1' | Draft, R extends string> = Told<P> &
  (
    | ({
        readonly call: 'register';
        readonly access: 'read';
        /** The field of the struct. */
        readonly register: R;
      } & Returned<{
        /** As in the region, reserved bits included; beyond 2^53-1 it is told as 2^53-1. Bytes, of all but device_state. */
        readonly value: number;
      }>)
    | ({
        readonly call: 'register';
        readonly access: 'write';
        readonly register: R;
        /** What was written, as above. */
        readonly value: number;
      } & Ended)
    | ({
        readonly call: 'data';
        readonly direction: Direction;
        /** Where in the region, in bytes. */
        readonly offset: number;
        readonly bytes: number;
      } & Ended)
    /** An access that is neither: within the struct, and not to a field in its own width. */
    | ({
        readonly call: 'other';
        readonly access: 'read' | 'write';
        readonly offset: number;
        readonly bytes: number;
      } & Ended)
    /** `VFIO_DEVICE_RESET`, or what resets an emulated device besides: its bus, a write to its config space. */
    | ({ readonly call: 'reset' } & Ended)
  );

/** Requests of `VFIO_DEVICE_FEATURE`, and calls on the data fd (linux/vfio.h, 5.18; pre-copy 6.2). */
export type V2Event = Told<'v2'> &
  /** `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE` with GET. */
  (
    | ({ readonly call: 'get-state' } & Returned<{
        /** `enum vfio_device_mig_state` without the prefix, `(9)` for a number that is none. */
        readonly state: string;
      }>)
    /** The same with SET. If it fails, the device may be in any state on the way, or in ERROR. */
    | ({
        readonly call: 'set-state';
        /** The state that was asked for, as above. */
        readonly state: string;
      } & Returned<{
        /** `data_fd` was not -1: a data session has begun. */
        readonly session: boolean;
      }>)
    /** `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE`. */
    | ({ readonly call: 'data-size' } & Returned<{
        /** `stop_copy_length`. */
        readonly bytes: number;
      }>)
    /** `VFIO_MIG_GET_PRECOPY_INFO`. */
    | ({ readonly call: 'precopy-info' } & Returned<{
        /** `initial_bytes` of `struct vfio_precopy_info`. */
        readonly initialBytes: number;
        /** `dirty_bytes` of it. */
        readonly dirtyBytes: number;
        /** `VFIO_PRECOPY_INFO_REINIT` was among its flags. */
        readonly reinit?: boolean;
      }>)
    /** `VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2` with SET. */
    | ({
        readonly call: 'precopy-info-v2';
        /** False where it was taken back, which only devices of ours know. */
        readonly wanted: boolean;
      } & Ended)
    /** read(2) of the data fd, or write(2); or what stands for them without a copy. */
    | ({
        readonly call: 'data';
        readonly direction: Direction;
      } & Returned<{
        /** How many were moved; 0 at the end of what there is to read. */
        readonly bytes: number;
      }>)
    /** `VFIO_DEVICE_RESET`. */
    | ({ readonly call: 'reset' } & Ended)
  );

/** The state that a call has shown the device in, or has brought it to. v1 and v2 have the same names, the drafts their own. */
export function stateIn(event: DeviceEvent): string | undefined {
  if (event.errno !== undefined) return undefined;
  switch (event.call) {
    case 'get-state':
    case 'set-state':
      return event.state;
    case 'register':
      if (event.register !== 'device_state') return undefined;
      return event.protocol === 'v1'
        ? v1StateName(withoutReserved(event.value))
        : draftStateName(event.protocol, event.value);
    case 'reset':
      return 'RUNNING';
    default:
      return undefined;
  }
}

/** True for a call that is to change the device's state, not to show it. */
export function isChange(event: DeviceEvent): boolean {
  if (event.call === 'register') return event.access === 'write' && event.register === 'device_state';
  return event.call === 'set-state' || event.call === 'reset';
}
