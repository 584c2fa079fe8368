import type { ErrnoName } from '../abi/errno.ts';
import type { V2State } from './states.ts';

/** `struct vfio_precopy_info` (linux/vfio.h, 6.2) in bytes; values beyond 2^53-1 are shown as 2^53-1. */
export interface PrecopyInfo {
  /** `initial_bytes`: what the destination should have before the device is stopped. */
  readonly initialBytes: number;
  /** `dirty_bytes`: what has been dirtied since, and not been read. */
  readonly dirtyBytes: number;
  /**
   * `VFIO_PRECOPY_INFO_REINIT` (7.1): there are initial bytes anew, and dirty ones are counted anew. Only of a device whose user has asked
   * for it (precopyInfoV2).
   */
  readonly reinit?: boolean;
}

/**
 * What the data fd of one saving or resuming session is to its user. Like the kernel's, a session ends when the device
 * leaves its states; every call then fails with `ENODEV`.
 */
export interface V2DataSession {
  /**
   * Reads at most `into.length` bytes and returns how many. 0 is the end of the stream in STOP_COPY; in PRE_COPY it
   * means "no data now", as does `ENOMSG` (only mlx5 distinguishes the two).
   * Throws `EAGAIN` (code `ERR_NO_DATA_YET`) when the driver will have data later: call again, nothing was consumed. If the
   * driver has a descriptor that tells when, or the time is known, the error says so (`readiness`).
   */
  read(into: Uint8Array): number;
  /**
   * The errno that a read with `O_NONBLOCK` ends with in the place of "not yet". Absent if the driver does not heed that flag, as none does
   * but mlx5.
   */
  readonly nonblockingErrno?: (() => ErrnoName) | undefined;
  /**
   * From when on poll(2) calls the data fd readable, in microseconds of `CLOCK_MONOTONIC`, if nobody makes a call on the device until
   * then: 0 is now, `Infinity` not before a call. Absent if the driver has no poll, as none has but mlx5: then it is always ready.
   */
  readonly readableFrom?: (() => number) | undefined;
  /**
   * The memory where the next bytes lie, at most `length` of them and none at the end of the stream: whoever takes them from
   * there and then says so with consume() spares a copy. `undefined` if there is none; throws as read() does. It shows the
   * same bytes until they are consumed.
   */
  peek?(length: number): Uint8Array | undefined;
  /** The first `length` bytes that peek() has just shown are read. */
  consume?(length: number): void;
  /**
   * Has the device prepare what the next read will give, so far as nothing that was not read could be lost by that. To be called
   * right after a read; what fails here is thrown by the next one.
   */
  readAhead?(): void;
  /**
   * Begins the next read, which will be into this memory, or wherever: the device gives data while its user does something else, and waits
   * for nobody. They may come there at once, which spares a copy: nobody else uses that memory until the read has returned, or the
   * device has left STOP_COPY, in which this is to be called. Absent if a device gives nothing before it is read.
   */
  readonly beginRead?: ((into?: Uint8Array) => void) | undefined;
  /** Takes at most `from.length` bytes and returns how many. Throws `EAGAIN` as read() does. */
  write(from: Uint8Array): number;
  /**
   * The memory where the next bytes that are written end up, at most `length` of them: whoever puts them there and then says so
   * with fill() spares a copy. `undefined` if there is none. It gives the same memory until that is filled.
   */
  room?(length: number): Uint8Array | undefined;
  /** The first `length` bytes of what room() has just given are written. Throws as write() does. */
  fill?(length: number): void;
  /** `VFIO_MIG_GET_PRECOPY_INFO`. Throws `EINVAL` outside PRE_COPY and PRE_COPY_P2P, after the session's end too. */
  precopyInfo(): PrecopyInfo;
  /** The user is done with the data fd. The device's state stays. */
  close(): void;
}

/** A device that speaks migration protocol v2: `VFIO_DEVICE_FEATURE` and a data fd (Linux 5.18 on). */
export interface V2Device {
  /** `VFIO_DEVICE_FEATURE_MIGRATION`: `VFIO_MIGRATION_*` bits, one of 1, 3, 5, 7. */
  readonly migrationFlags: number;
  /** `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE` with GET: asked of the device each time, since a reset changes it. */
  getState(): V2State;
  /**
   * `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE` with SET: walks the FSM to `target`. Returns the data session if one
   * begins (`data_fd` not -1), `undefined` if none begins or the running one goes on. On failure the state is the
   * old one, any on the path, or ERROR: ask getState().
   */
  setState(target: V2State): V2DataSession | undefined;
  /** The session that is open now: the one that setState() returned last, or what a successor process inherited. */
  openSession(): V2DataSession | undefined;
  /** `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE` in bytes, in any state. Throws `ENOTTY` if the driver has none. */
  stopCopyLength(): number;
  /**
   * `VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2` with SET (Linux 7.1), which the kernel remembers until the device was closed: from now on precopyInfo()
   * tells of `reinit`, or no more. Absent, or throws `ENOTTY`, if neither driver nor kernel has it.
   */
  readonly precopyInfoV2?: ((wanted: boolean) => void) | undefined;
  /** `VFIO_DEVICE_RESET`: RUNNING afterwards, sessions ended. */
  reset(): void;
}
