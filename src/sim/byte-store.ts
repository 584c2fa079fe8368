import { createHash } from 'node:crypto';

/** Memory that is read and written in pieces: it may be larger than what Node maps, and pieces that nobody touches cost nothing. */
export interface ByteStore {
  /** In bytes. */
  readonly size: number;
  /** Fills `into` from `at` on. What is asked for lies within the memory. */
  read(at: number, into: Uint8Array): void;
  /** As read(). */
  write(at: number, from: Uint8Array): void;
}

/** The same over bytes that lie in one piece. */
export function storeOf(bytes: Uint8Array): ByteStore {
  return {
    size: bytes.length,
    read: (at, into) => into.set(bytes.subarray(at, at + into.length)),
    write: (at, from) => bytes.set(from, at),
  };
}

/** What one look at such memory takes, in bytes. */
const PIECE = 4 * 1024 * 1024;

/** The hash of all of it, in hexadecimal. */
export function sha256Of(store: ByteStore): string {
  const hash = createHash('sha256');
  const piece = new Uint8Array(Math.min(PIECE, store.size));
  for (let at = 0; at < store.size; at += PIECE) {
    const bytes = piece.subarray(0, Math.min(PIECE, store.size - at));
    store.read(at, bytes);
    hash.update(bytes);
  }
  return hash.digest('hex');
}
