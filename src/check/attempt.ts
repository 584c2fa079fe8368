import { errnoNameOf, ShimError } from '../error.ts';
import type { ErrnoName } from '../abi/errno.ts';
import { sleepUntilReady, whenReady } from '../wait.ts';
import { Broken } from './rule.ts';

/** How long a device may say "not yet" to one call, in milliseconds: far longer than any needs on a machine that does other things too. */
const OF_A_CALL = 30_000;
/** And to a save or a load, with all of its calls. */
const OF_A_PROCEDURE = 300_000;

/** Calls on a device that may have to wait for it, and not for ever. */
export class Patience {
  #end = 0;

  /** For a procedure that waits by itself: begins to count. */
  begin(): () => void {
    this.#end = performance.now() + OF_A_PROCEDURE;
    return this.#wait;
  }

  readonly #wait = (): void => {
    if (performance.now() > this.#end) throw new Broken('the device says "not yet", and never anything else');
    sleepUntilReady();
  };

  await<T>(operation: () => T): T {
    this.#end = performance.now() + OF_A_CALL;
    return whenReady(operation, this.#wait);
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
