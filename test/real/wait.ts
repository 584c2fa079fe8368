import { setTimeout as sleep } from 'node:timers/promises';

/** Where programs are slow, as in a guest that is emulated, everything is waited for this many times as long. */
const PATIENCE = Number(process.env['VFIO_SHIM_PATIENCE'] ?? 1);

/** Rejects with a message that names what was awaited unless `promise` settles within `ms`. */
export async function within<T>(promise: Promise<T>, ms: number, what: string | (() => string)): Promise<T> {
  const timeout = new AbortController();
  const expired = sleep(ms * PATIENCE, undefined, { signal: timeout.signal }).then(() => {
    throw new Error(`timed out after ${ms * PATIENCE} ms: ${typeof what === 'string' ? what : what()}`);
  });
  try {
    return await Promise.race([promise, expired]);
  } finally {
    // An aborted sleep rejects, and nobody listens any more.
    expired.catch(() => {});
    timeout.abort();
  }
}

/** Asks until the answer is not `undefined`; the answers must come within `ms`. */
export async function poll<T>(
  ask: () => Promise<T | undefined> | T | undefined,
  ms: number,
  what: string | (() => string),
  intervalMs = 20,
): Promise<T> {
  const end = Date.now() + ms * PATIENCE;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() >= end)
      throw new Error(`timed out after ${ms * PATIENCE} ms: ${typeof what === 'string' ? what : what()}`);
    await sleep(intervalMs);
  }
}
