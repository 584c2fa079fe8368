import { readdirSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** A day has 86,400 seconds: what has something to do does it 200,000 times in a day or sooner. */
export const TURNS = 200_000;

/** By then a function has been compiled, and has what it keeps for good. */
const WARM = TURNS / 10;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** What has grown over many turns: descriptors of this process, and bytes of its heap and of its buffers once all garbage is gone. */
export function growth(turn: () => void): { descriptors: number; bytes: number } {
  for (let n = 0; n < WARM; n += 1) turn();
  const before = held();
  for (let n = 0; n < TURNS; n += 1) turn();
  const after = held();
  return { descriptors: after.descriptors - before.descriptors, bytes: after.bytes - before.bytes };
}

/** A turn that keeps anything keeps 8 bytes at least, which is 1.6 MB over all: what is less is V8's own. */
export const NOTHING = 2 ** 20;

function held(): { descriptors: number; bytes: number } {
  collect();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return { descriptors: readdirSync('/proc/self/fd').length, bytes: heapUsed + arrayBuffers };
}
