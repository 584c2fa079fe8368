import { isNotReady, type Readiness } from './error.ts';

/** Is called after a device said "not yet" (`EAGAIN`), with what tells when it is ready, if anything does. Returns when to ask again. */
export type WaitForDevice = (readiness?: Readiness) => void;

const nap = new Int32Array(new SharedArrayBuffer(4));

/** Sleeps a millisecond: the wait that needs no system call of our own. */
export const sleepUntilReady: WaitForDevice = () => {
  Atomics.wait(nap, 0, 0, 1);
};

/** Repeats an operation while the device says "not yet". */
export function whenReady<T>(operation: () => T, wait: WaitForDevice): T {
  for (;;) {
    try {
      return operation();
    } catch (error) {
      if (!isNotReady(error)) throw error;
      wait(error.readiness);
    }
  }
}
