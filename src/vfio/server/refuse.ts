import type { ErrnoName } from '../../abi/errno.ts';
import { ShimError } from '../../error.ts';

/** A request that is refused, as the kernel would refuse it. */
export function refuse(errno: ErrnoName, why: string): ShimError {
  return new ShimError('ERR_TARGET', why, { errno });
}
