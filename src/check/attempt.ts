import { errnoNameOf, ShimError } from '../error.ts';
import type { ErrnoName } from '../abi/errno.ts';
import { sleepUntilReady, whenReady } from '../wait.ts';
import { Broken } from './rule.ts';

/** How long a device may say "not yet" to what one rule asks of it, in milliseconds. */
const PATIENCE = 10_000;

/** Calls on a device that may have to wait for it, and no longer than a rule may take. */
export class Patience {
  #end = 0;

  /** A rule begins. */
  begin(): void {
    this.#end = performance.now() + PATIENCE;
  }

  readonly wait = (): void => {
    if (performance.now() > this.#end) throw new Broken(`the device says "not yet" for ${PATIENCE / 1000} seconds`);
    sleepUntilReady();
  };

  await<T>(operation: () => T): T {
    return whenReady(operation, this.wait);
  }

  /** The errno with which an operation fails; `undefined` if it does not. */
  refusal(operation: () => unknown): ErrnoName | undefined {
    try {
      this.await(operation);
      return undefined;
    } catch (error) {
      if (!(error instanceof ShimError)) throw error;
      return errnoNameOf(error);
    }
  }
}
