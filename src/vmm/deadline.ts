import { setTimeout as sleep } from 'node:timers/promises';
import { ShimError } from '../error.ts';

/** If programs are slow, as in a guest that is emulated, everything is waited for this many times as long. */
export const PATIENCE = Number(process.env['VFIO_SHIM_PATIENCE'] ?? 1);

/** What is awaited, in words; a function if that is known only when time is up. */
type What = string | (() => string);

function timedOut(ms: number, what: What): ShimError {
  const text = typeof what === 'string' ? what : what();
  return new ShimError('ERR_TARGET', `timed out after ${(ms * PATIENCE) / 1000} s: ${text}`);
}

/** The result of a promise that must settle within `ms`. */
export async function within<T>(promise: Promise<T>, ms: number, what: What): Promise<T> {
  const timeout = new AbortController();
  const expired = sleep(ms * PATIENCE, undefined, { signal: timeout.signal }).then(() => {
    throw timedOut(ms, what);
  });
  try {
    return await Promise.race([promise, expired]);
  } finally {
    expired.catch(() => {}); // an aborted sleep rejects, and nobody listens any more
    timeout.abort();
  }
}

/** True if a promise was fulfilled within `ms`; nobody needs it to be. */
export function fulfilled(promise: Promise<unknown>, ms: number): Promise<boolean> {
  return within(promise, ms, '').then(
    () => true,
    () => false,
  );
}

/** Asks until the answer is not `undefined`, which must be within `ms`. */
export async function poll<T>(
  ask: () => Promise<T | undefined> | T | undefined,
  ms: number,
  what: What,
  intervalMs = 20,
): Promise<T> {
  const end = performance.now() + ms * PATIENCE;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (performance.now() >= end) throw timedOut(ms, what);
    await sleep(intervalMs);
  }
}
