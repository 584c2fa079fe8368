import { randomInt } from 'node:crypto';
import type { OwnedFd } from './fd.ts';
import { syscallError } from './libc.ts';
import { receivePieces, SCM_MAX_FD, sendPieces } from './message-socket.ts';
import { MSG_PEEK } from './socket.ts';

/** Before the slots of a set there is a number by which it can be told from others. */
const HEAD = 4;

/**
 * A place for several open files, each in a slot that has a number: one message in the queue of a socket, which stays there as long as any
 * process has the two ends. What a process puts there outlives it.
 */
export class FdShelf {
  readonly #in: number;
  readonly #out: number;
  readonly #message = new Uint8Array(HEAD + 4 * SCM_MAX_FD);

  /** The descriptors of a socketPair(). */
  constructor(into: number, out: number) {
    this.#in = into;
    this.#out = out;
  }

  /** What is there, by other descriptors of the same files. */
  peek(): Map<number, OwnedFd> {
    return this.#peek()?.files ?? new Map();
  }

  /** Replaces all that is there. A process that is killed meanwhile leaves the old files or the new ones. */
  put(files: ReadonlyMap<number, { readonly number: number }>): void {
    const set = randomInt(1, 2 ** 32);
    const message = Buffer.from(Uint32Array.of(set, ...files.keys()).buffer);
    const fds = Array.from(files.values(), ({ number }) => number);
    const sent = sendPieces(this.#in, [message], fds);
    if (sent < 0) throw syscallError('keep descriptors for a successor', 'sendmsg', -sent);
    while (this.#look() !== set) this.#drop();
  }

  /** Which set is there; 0 if there is none. */
  #look(): number {
    const found = this.#peek();
    for (const file of found?.files.values() ?? []) file.close();
    return found?.set ?? 0;
  }

  #drop(): void {
    for (const file of receivePieces(this.#out, [this.#message])?.fds ?? []) file.close();
  }

  #peek(): { readonly set: number; readonly files: Map<number, OwnedFd> } | undefined {
    const message = this.#message;
    const received = receivePieces(this.#out, [message], MSG_PEEK);
    if (received === undefined) return undefined;
    const { length, fds } = received;
    const [set = 0, ...slots] = new Uint32Array(message.slice(0, length).buffer);
    return { set, files: new Map(fds.map((fd, n) => [slots[n] ?? 0, fd])) };
  }
}
