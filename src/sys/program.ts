import { readFileSync } from 'node:fs';
import { AT_RANDOM } from '../abi/auxvec.ts';
import type { OwnedFd } from './fd.ts';
import { holdMemory, readProcessMemory } from './process-memory.ts';

/**
 * Which program a thread's process runs, as a number that the next one has not which it begins by execve(2): random bytes that the kernel
 * gives each program (linux/auxvec.h: AT_RANDOM). `undefined` if there is none, or this process may not look; a program that writes over
 * them is another. `held` is the memory of the process, opened before: the number is that of the program whose memory it is.
 */
export function programOf(tid: number, held?: OwnedFd): bigint | undefined {
  try {
    const address = randomAt(readFileSync(`/proc/${tid}/auxv`));
    if (address === undefined) return undefined;
    using own = held === undefined ? holdMemory(tid) : undefined;
    const bytes = new Uint8Array(8);
    readProcessMemory(tid, address, bytes, (held ?? own)?.number);
    return new DataView(bytes.buffer).getBigUint64(0, true);
  } catch {
    return undefined;
  }
}

/** Pairs of u64: an entry, and its value. */
function randomAt(vector: Uint8Array): number | undefined {
  const view = new DataView(vector.buffer, vector.byteOffset, vector.length);
  for (let at = 0; at + 16 <= vector.length; at += 16) {
    if (view.getBigUint64(at, true) === BigInt(AT_RANDOM)) return Number(view.getBigUint64(at + 8, true));
  }
  return undefined;
}
