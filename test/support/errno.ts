import { ShimError, type ErrorCode, type Readiness } from '../../src/error.ts';

/** What a call came to: `OK`, or the errno of the ShimError it threw. Anything else that is thrown goes on. */
export function outcome(call: () => unknown): string {
  try {
    call();
    return 'OK';
  } catch (error) {
    if (error instanceof ShimError) return error.errno ?? 'EIO';
    throw error;
  }
}

/** The ShimError that a call throws. */
export function thrownBy(call: () => unknown): ShimError {
  try {
    call();
  } catch (error) {
    if (error instanceof ShimError) return error;
    throw error;
  }
  throw new Error('the call was expected to throw and did not');
}

export function notYet(readiness?: Readiness): ShimError {
  return new ShimError('ERR_NO_DATA_YET', 'not yet', { errno: 'EAGAIN', ...(readiness && { readiness }) });
}

export function failure(errno: NonNullable<ShimError['errno']>, code: ErrorCode = 'ERR_DEVICE'): ShimError {
  return new ShimError(code, `injected ${errno}`, { errno });
}

/** Says "not yet" to one call in three, the same ones for the same seed. */
export function sometimes(seed = 1): () => void {
  let x = seed;
  return () => {
    x = (Math.imul(x, 1_103_515_245) + 12_345) >>> 0;
    if ((x >>> 16) % 3 === 0) throw notYet();
  };
}
