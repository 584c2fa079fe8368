import { setTimeout as sleep } from 'node:timers/promises';
import { ShimError } from '../error.ts';

/** The result of a promise that must settle within `ms`; `what` says what was awaited. */
export async function within<T>(promise: Promise<T>, ms: number, what: string): Promise<T> {
  const timeout = new AbortController();
  const expired = sleep(ms, undefined, { signal: timeout.signal }).then(() => {
    throw new ShimError('ERR_TARGET', `${what}: nothing within ${ms / 1000} s`);
  });
  try {
    return await Promise.race([promise, expired]);
  } finally {
    expired.catch(() => {}); // an aborted sleep rejects, and nobody listens any more
    timeout.abort();
  }
}

/** Asks until the answer is not `undefined`, which must be within `ms`. */
export async function poll<T>(ask: () => Promise<T | undefined> | T | undefined, ms: number, what: string): Promise<T> {
  const end = performance.now() + ms;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (performance.now() >= end) throw new ShimError('ERR_TARGET', `${what}: not within ${ms / 1000} s`);
    await sleep(10);
  }
}
