import { hasErrno, ShimError } from '../error.ts';
import type { V2DataSession } from './device.ts';

/** One read of the data fd, repeated where a signal cut it short; a length that cannot be is the driver's error. */
export function readData(session: V2DataSession, into: Uint8Array): number {
  return uninterrupted(() => checkedLength('read', session.read(into), into.length));
}

/** One write of a data fd, as readData(). A driver that takes nothing, and does not say why, would keep its user for ever. */
export function writeData(session: V2DataSession, from: Uint8Array): number {
  const length = uninterrupted(() => checkedLength('write', session.write(from), from.length));
  if (length > 0) return length;
  throw new ShimError('ERR_DEVICE', `data fd: took 0 of ${from.length} bytes`, { errno: 'EIO', syscall: 'write' });
}

function uninterrupted(operation: () => number): number {
  for (;;) {
    try {
      return operation();
    } catch (error) {
      if (!hasErrno(error, 'EINTR')) throw error;
    }
  }
}

function checkedLength(call: string, length: number, limit: number): number {
  if (Number.isInteger(length) && length >= 0 && length <= limit) return length;
  throw new ShimError('ERR_DEVICE', `data fd: ${call} of ${limit} bytes returned ${length}`, { errno: 'EIO' });
}
