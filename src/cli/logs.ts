import { writeSync } from 'node:fs';
import { format } from 'node:util';
import createDebug, { type Debugger } from 'debug';

// at once, whichever thread logs: nothing is lost where the process is killed
createDebug.log = (...args: unknown[]): void => {
  try {
    writeSync(2, `${format(...args)}\n`);
  } catch {
    // nobody can be told
  }
};

/** `-v` is the same as `DEBUG=vfio-shim:*`. */
export function useLogs(verbose: boolean): void {
  if (verbose) createDebug.enable('vfio-shim:*');
}

/** A log of what is done, for `-v` and `DEBUG=vfio-shim:*`. */
export function logger(name: string): Debugger {
  return createDebug(`vfio-shim:${name}`);
}
