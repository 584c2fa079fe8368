import { hasOwnRights, reachesOthers } from '../sys/credentials.ts';
import type { OwnedFd } from '../sys/fd.ts';
import { holdMemory } from '../sys/process-memory.ts';

/*
 * Memory is reached by the id of the thread that calls, and an id may belong to somebody else by the time an answer is written: the
 * caller was killed, and the kernel gives its number away again. Where this process may reach no more than the caller itself may,
 * nothing is gained by that. Where it may (root serves a VMM that runs as somebody else), the memory is opened once, the
 * notification is checked, and from then on only what was opened is used.
 */

/** For how long a thread's answer holds, in milliseconds: it could put its own memory in the place of its own only. */
const HOLDS = 1;

interface Known {
  readonly tid: number;
  readonly until: number;
  readonly memory: OwnedFd | undefined;
}
let last: Known = { tid: 0, until: 0, memory: undefined };

/**
 * The descriptor through which a caller's memory is to be reached; `undefined` where its id will do. `check` throws where the
 * caller is gone.
 */
export function callerMemory(tid: number, check: () => void): number | undefined {
  if (!reachesOthers) return undefined;
  const now = performance.now();
  if (tid !== last.tid || now >= last.until) {
    last.memory?.close();
    last = { tid: 0, until: 0, memory: undefined };
    const memory = hasOwnRights(tid) === true ? undefined : holdMemory(tid);
    last = { tid, until: now + HOLDS, memory };
    try {
      check();
    } catch (error) {
      last = { tid: 0, until: 0, memory: undefined };
      memory?.close();
      throw error;
    }
  }
  return last.memory?.number;
}
