import { readSync, writeSync } from 'node:fs';
import { ShimError } from '../../error.ts';
import { setBlocking } from '../../sys/fd.ts';

/** The migration's socket: descriptor 0 at both ends. */
const SOCKET = 0;

/** Node 18 gives the child of a pipe an end that does not wait. */
export function openChannel(): void {
  setBlocking(SOCKET);
}

/** Writes all of these chunks before it returns, so that their memory may be reused. */
export function send(chunks: readonly Uint8Array[]): void {
  for (const chunk of chunks) {
    for (let done = 0; done < chunk.length;) done += writeSync(SOCKET, chunk, done, chunk.length - done);
  }
}

/** Waits for bytes and returns how many there are in `into`. The end of the connection is an error. */
export function receive(into: Uint8Array): number {
  const length = readSync(SOCKET, into, 0, into.length, null);
  if (length === 0) throw new ShimError('ERR_STREAM_TRUNCATED', 'migration: the other end closed the connection');
  return length;
}

/** What the destination says on the way back: that it waits for the state, and that it has loaded it (QEMU's return path). */
export const Word = { READY: 1, LOADED: 2 } as const;

export function say(word: number): void {
  send([Uint8Array.of(word)]);
}

export function hear(word: number): void {
  const heard = new Uint8Array(1);
  receive(heard);
  if (heard[0] !== word) throw new ShimError('ERR_STREAM_CORRUPT', `migration: the destination says ${heard[0]}`);
}
