import { callTime } from './call-time.ts';
import { hasOwnRights, reachesOthers } from '../../sys/credentials.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import { holdMemory } from '../../sys/process-memory.ts';

/*
 * Memory is reached by the id of the thread that calls, and an id may belong to somebody else by the time an answer is written: the
 * caller was killed, and the kernel gives its number away again. If this process may reach no more than the caller itself may,
 * nothing is gained by that. If it may (root serves a VMM that runs as somebody else), the memory is opened once, the
 * notification is checked, and from then on only what was opened is used.
 */

/** For how long memory that was opened is a thread's own, in milliseconds: a program may take the place of another. */
const HOLDS = 1;
/**
 * For how long the rights of a thread are known, in milliseconds: it costs as much to ask as several calls. One that has given them up
 * meanwhile is reached by its id a little longer, as it was when it had them.
 */
const RIGHTS_HOLD = 100;

/** Whether threads have our rights, and until when that holds. */
const rights = new Map<number, { readonly until: number; readonly areOurs: boolean }>();
const MAX_THREADS = 1024;
const held = { tid: 0, until: 0, memory: undefined as OwnedFd | undefined };

/**
 * The descriptor through which a caller's memory is to be reached; `undefined` if its id will do. `check` throws if the
 * caller is gone.
 */
export function callerMemory(tid: number, check: () => void): number | undefined {
  if (!reachesOthers) return undefined;
  const now = callTime();
  let known = rights.get(tid);
  if (known === undefined || now >= known.until) {
    if (rights.size >= MAX_THREADS) rights.clear();
    known = { until: now + RIGHTS_HOLD, areOurs: hasOwnRights(tid) === true };
    rights.set(tid, known);
  }
  if (known.areOurs) return undefined;
  if (tid !== held.tid || now >= held.until || held.memory === undefined) {
    held.memory?.close();
    held.memory = undefined;
    const memory = holdMemory(tid);
    try {
      check();
    } catch (error) {
      memory.close();
      throw error;
    }
    held.memory = memory;
    held.tid = tid;
    held.until = now + HOLDS;
  }
  return held.memory.number;
}
