import { SpyV1 } from './spy-v1.ts';
import type { SpyV2, V2Call } from './spy-v2.ts';
import type { RegisterName } from './v1-user.ts';

/**
 * The next access of a register, or the next call, is answered with an error and does not reach the device. One behind
 * another, each has its turn.
 */
export function failOnce(spy: SpyV1, what: RegisterName | 'data', error: Error): void;
export function failOnce(spy: SpyV2, what: V2Call, error: Error): void;
export function failOnce(spy: SpyV1 | SpyV2, what: string, error: Error): void {
  let due = true;
  const strike = (now: string): void => {
    if (!due || now !== what) return;
    due = false;
    throw error;
  };
  if (spy instanceof SpyV1) {
    const former = spy.options;
    spy.options = {
      ...former,
      before(access, register, value) {
        former.before?.(access, register, value);
        strike(register);
      },
    };
  } else {
    const former = spy.options;
    spy.options = {
      ...former,
      before(call, argument) {
        former.before?.(call, argument);
        strike(call);
      },
    };
  }
}
