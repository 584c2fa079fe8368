import { readdirSync } from 'node:fs';
import { hasErrno } from '../../error.ts';
import { processOf } from '../../sys/pidfd.ts';
import { linkOf } from '../trap/kernel-names.ts';
import { placeOf } from '../trap/run-mark.ts';
import type { Reach } from './reach.ts';

/** Whether the process that was last seen to use what has a place still has a descriptor of it, whatever its number. */
export function isHeld(
  reach: Reach,
  { tid, fd }: { readonly tid: number; readonly fd: number },
  place: number,
): boolean {
  const has = (number: number): boolean => {
    using own = reach.duplicate(tid, number);
    return own !== undefined && placeOf(own.number) === place;
  };
  try {
    if (has(fd)) return true;
    const directory = `/proc/${processOf(tid) ?? tid}/fd`;
    return readdirSync(directory).some(
      (name) => linkOf(`${directory}/${name}`).includes('vfio') && has(Number(name)), // a name says only what is worth a look
    );
  } catch (error) {
    return !hasErrno(error, 'ESRCH') && processOf(tid) !== undefined; // what cannot be told is not closed
  }
}
