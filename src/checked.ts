import { ShimError } from './error.ts';

/** A number of bytes that somebody else's object or an option gives. Throws `EIO` for one that is none. */
export function checkedBytes(what: string, value: number): number {
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw new ShimError('ERR_DEVICE', `${what}: ${value} is no number of bytes`, { errno: 'EIO' });
}
