import { hasErrno, ShimError } from '../error.ts';
import type { V2DataSession } from './device.ts';
import { v2StateName, type V2State } from './states.ts';

/** How often in a row a driver may say that a signal came (`EINTR`), which none does for long. */
const MOST_INTERRUPTIONS = 1000;

/** The session that a request for a state has begun. Throws `EIO` if the device began none. */
export function begunSession(state: V2State, session: V2DataSession | undefined): V2DataSession {
  if (session !== undefined) return session;
  throw new ShimError('ERR_DEVICE', `v2 driver: is in ${v2StateName(state)} without a data session`, { errno: 'EIO' });
}

/** One read of the data fd, repeated if a signal cuts it short. A driver that returns an impossible length is at fault. */
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
  for (let interruptions = 1; ; interruptions += 1) {
    try {
      return operation();
    } catch (error) {
      if (!hasErrno(error, 'EINTR')) throw error;
      if (interruptions < MOST_INTERRUPTIONS) continue;
      throw new ShimError('ERR_DEVICE', `data fd: interrupted ${interruptions} times in a row`, {
        errno: 'EINTR',
        cause: error,
      });
    }
  }
}

function checkedLength(call: string, length: number, limit: number): number {
  if (Number.isInteger(length) && length >= 0 && length <= limit) return length;
  throw new ShimError('ERR_DEVICE', `data fd: ${call} of ${limit} bytes returned ${length}`, { errno: 'EIO' });
}
