import { errnoName, errnoNumber, type ErrnoName } from './abi/errno.ts';

/**
 * Every code an error of this package can carry. docs/errors.md documents each; a test keeps the two lists equal.
 * Codes are stable: programs may compare them.
 */
export const ERROR_CODES = [
  'ERR_ACCESS',
  'ERR_ARGUMENT',
  'ERR_COMMAND',
  'ERR_DEVICE',
  'ERR_FEATURE_UNSUPPORTED',
  'ERR_FILE',
  'ERR_FILE_CORRUPT',
  'ERR_FILE_TRUNCATED',
  'ERR_FILE_VERSION',
  'ERR_INTERRUPTED',
  'ERR_KERNEL_FEATURE',
  'ERR_NO_DATA_NOW',
  'ERR_NO_DATA_YET',
  'ERR_OTHER_DEVICE',
  'ERR_SESSION_ENDED',
  'ERR_SPEC',
  'ERR_STATE_UNKNOWN',
  'ERR_STREAM_CORRUPT',
  'ERR_STREAM_TRUNCATED',
  'ERR_SYSCALL',
  'ERR_TARGET',
  'ERR_TRANSITION',
] as const;

/** A code of ERROR_CODES. */
export type ErrorCode = (typeof ERROR_CODES)[number];

/** What tells that a device is ready: events of poll(2) on a descriptor of this process. */
export interface ReadyFd {
  readonly fd: number;
  /** `POLL*` bits, any of which means "ready". */
  readonly events: number;
}

/** When a device is ready, if nobody makes a call on it until then: microseconds of `CLOCK_MONOTONIC`. */
export interface ReadyAt {
  /** 0 is now, `Infinity` not before a call. */
  readonly at: number;
}

/** What is known of when a device is ready. */
export type Readiness = ReadyFd | ReadyAt;

/** True for readiness that is told by a descriptor, not by a time. */
export function isReadyFd(readiness: Readiness | undefined): readiness is ReadyFd {
  return readiness !== undefined && 'fd' in readiness;
}

/** What a ShimError can say besides its code and message. */
export interface ErrorDetails {
  /** What the same failure is called at the system call interface, e.g. `EINVAL`. */
  readonly errno?: ErrnoName;
  /** The system call that failed, e.g. `ioctl(VFIO_DEVICE_RESET)`. */
  readonly syscall?: string;
  /** What was caught, if the error stands for it. */
  readonly cause?: unknown;
  /** Of `ERR_NO_DATA_YET`, if the device has a descriptor for it, or knows the time. */
  readonly readiness?: Readiness;
  /** Of `ERR_NO_DATA_YET`: what was asked for is being done, and whoever repeats it gets the result. */
  readonly underWay?: boolean;
}

/** The one error class: a stable `code`, and the errno that a VMM sees if the failure reaches one. */
export class ShimError extends Error {
  override readonly name = 'ShimError';
  /** Stable; docs/errors.md documents each. */
  readonly code: ErrorCode;
  /** As ErrorDetails.errno. */
  readonly errno: ErrnoName | undefined;
  /** As ErrorDetails.syscall. */
  readonly syscall: string | undefined;
  /** As ErrorDetails.readiness. */
  readonly readiness: Readiness | undefined;
  /** As ErrorDetails.underWay. */
  readonly underWay: boolean;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.errno = details.errno;
    this.syscall = details.syscall;
    this.readiness = details.readiness;
    this.underWay = details.underWay ?? false;
  }

  /** The errno's number on this system, `EIO` if the failure has none. */
  get errnoNumber(): number {
    return errnoNumber(this.errno ?? 'EIO');
  }
}

/** The number of an error's errno, `EIO` if it has none or is no ShimError. */
export function errnoOf(error: unknown): number {
  return error instanceof ShimError ? error.errnoNumber : errnoNumber('EIO');
}

/** The same by its name. */
export function errnoNameOf(error: unknown): ErrnoName {
  return (error instanceof ShimError ? error.errno : undefined) ?? 'EIO';
}

/** The name of an errno number, `EIO` for one that the kernel has no name for. */
export function errnoNameOrEio(number: number): ErrnoName {
  return errnoName(number) ?? 'EIO';
}

/** True for an error that means "not now, ask again when the device is ready": `EAGAIN`. */
export function isNotReady(error: unknown): error is ShimError {
  return error instanceof ShimError && error.code === 'ERR_NO_DATA_YET';
}

/** True for a "not now" of which the device will know: what was asked for is being done meanwhile. */
export function isUnderWay(error: unknown): boolean {
  return isNotReady(error) && error.underWay;
}

/** True for an error that carries this errno. */
export function hasErrno(error: unknown, errno: ErrnoName): error is ShimError {
  return error instanceof ShimError && error.errno === errno;
}
