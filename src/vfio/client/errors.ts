import type { ErrnoName } from '../../abi/errno.ts';
import { ShimError, type ErrorCode, type Readiness } from '../../error.ts';

const codes: Readonly<Partial<Record<string, ErrorCode>>> = {
  EAGAIN: 'ERR_NO_DATA_YET',
  ENOMSG: 'ERR_NO_DATA_NOW',
  ENODEV: 'ERR_SESSION_ENDED',
};

/**
 * A driver's failure to read or write migration data, with the codes that the core knows; if it is "not yet", with what tells when
 * the driver is ready.
 */
export function dataError(call: string, errno: ErrnoName, readiness?: Readiness): ShimError {
  return new ShimError(codes[errno] ?? 'ERR_DEVICE', `migration data: ${call} failed with ${errno}`, {
    errno,
    syscall: call,
    ...(errno === 'EAGAIN' && readiness && { readiness }),
  });
}

/** A failed call on a device, as the driver's answer. */
export function deviceError(doing: string, error: unknown): unknown {
  if (!(error instanceof ShimError) || error.errno === undefined) return error;
  const { errno, syscall = '' } = error;
  const code = errno === 'EAGAIN' ? 'ERR_NO_DATA_YET' : 'ERR_DEVICE';
  return new ShimError(code, `${doing}: the driver answers ${errno}`, { errno, syscall, cause: error });
}
