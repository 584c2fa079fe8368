import type { ErrnoName } from '../abi/errno.ts';
import { ShimError, type ErrorCode } from '../error.ts';

/** What a simulated driver answers with an errno. */
export function simError(errno: ErrnoName, why: string, code: ErrorCode = 'ERR_DEVICE'): ShimError {
  return new ShimError(code, `simulated device: ${why}`, { errno });
}

/** "Not yet": whoever calls again at `at`, in microseconds of `CLOCK_MONOTONIC`, gets what it is about. */
export function simNotYet(what: string, at: number): ShimError {
  return new ShimError('ERR_NO_DATA_YET', `simulated device: ${what}`, { errno: 'EAGAIN', readiness: { at } });
}
