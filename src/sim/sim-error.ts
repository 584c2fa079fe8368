import type { ErrnoName } from '../abi/errno.ts';
import { ShimError, type ErrorCode } from '../error.ts';

/** What a simulated driver answers with an errno. */
export function simError(errno: ErrnoName, why: string, code: ErrorCode = 'ERR_DEVICE'): ShimError {
  return new ShimError(code, `simulated device: ${why}`, { errno });
}

/** "Not yet": whoever calls again later gets what it is about. */
export function simNotYet(what: string): ShimError {
  return new ShimError('ERR_NO_DATA_YET', `simulated device: ${what}`, { errno: 'EAGAIN' });
}
