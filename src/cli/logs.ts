import { format } from 'node:util';
import createDebug, { type Debugger } from 'debug';
import { say } from './output.ts';

// at once, whichever thread logs: nothing is lost if the process is killed
createDebug.log = (...args: unknown[]): void => say(`${format(...args)}\n`);

/** `-v` is the same as `DEBUG=vfio-shim:*`. */
export function useLogs(verbose: boolean): void {
  if (verbose) createDebug.enable('vfio-shim:*');
}

/** A log of what is done, for `-v` and `DEBUG=vfio-shim:*`. */
export function logger(name: string): Debugger {
  return createDebug(`vfio-shim:${name}`);
}
