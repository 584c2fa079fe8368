import { markFile, markOf } from '../../sys/fd.ts';

/*
 * The mark on the open file of a bridged device: its place, and which run has given it that place. A descriptor may come from
 * another run, if a VMM hands its devices to the next one (QEMU's cpr-transfer), and bring that run's mark; both runs may serve at
 * once. So the file's mark names the run's keeper too, as the process that the file would send its signals to. A mark of another run,
 * or of one that is over, is none: the device is found anew, and marked anew. The other run then no longer takes it for its own.
 */

/** Of this supervisor and of those before it. */
const keeper = process.ppid;

export function markPlace(fd: number, place: number, run = keeperLives() ? keeper : process.pid): void {
  markFile(fd, place + 1, run);
}

/** The place that a run has given to a device; -1 for none. */
export function placeOf(fd: number, run = keeper): number {
  const { mark, owner } = markOf(fd);
  // if our keeper has died, what it owned is nobody's: so are marks of runs that are over, which is then not to be told
  const isOurs = owner === run || owner === process.pid || (owner === 0 && run === keeper && !keeperLives());
  return isOurs ? mark - 1 : -1;
}

/** A supervisor without its keeper is the last of its run. */
function keeperLives(): boolean {
  return process.ppid === keeper;
}
