import type { ByteStore } from './byte-store.ts';

/** What a simulated device keeps: every byte of it is in memory that the caller may share with a successor process. */
export interface SimMemory {
  /** BAR0, what the guest sees. */
  readonly bar: Uint8Array;
  /** `SIM_STATE_SIZE` bytes: the device's own registers, what its driver keeps behind them, and at the end the fault counters. */
  readonly state: Uint8Array;
  /** Of a v1 driver: the data section. */
  readonly section: Uint8Array;
  /** What a driver keeps besides, as it says: memory as it was last sent, buffers. No part of a call's ledger: only what a call that is served twice writes twice. */
  readonly kept: Uint8Array;
  /** Instead of `bar` and `kept`, which are empty then: memory that is not mapped. For drivers that take it so (`takesPieces`). */
  readonly pieces?: { readonly bar: ByteStore; readonly kept: ByteStore };
}

/** Bytes of SimMemory.state. */
export const SIM_STATE_SIZE = 512;

const BLOCK = 65536;
const SEED_MASK = 0x9e3779b9;

/**
 * Fills memory with the pattern of a seed: no two pages alike, and no two seeds. Seed 0 leaves it as it is.
 */
export function fillPattern(memory: ByteStore, seed: number): void {
  if (seed === 0) return;
  const block = new Uint32Array(BLOCK / 4);
  let x = (seed ^ SEED_MASK) >>> 0 || SEED_MASK; // the generator never leaves 0; seed 0 is not used
  for (let i = 0; i < block.length; i += 1) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    block[i] = x;
  }
  const bytes = new Uint8Array(block.buffer);
  for (let at = 0; at < memory.size; at += BLOCK) {
    for (let page = 0; page < BLOCK / 1024; page += 1) block[page * 256] = at / 1024 + page;
    memory.write(at, bytes.subarray(0, Math.min(BLOCK, memory.size - at)));
  }
}
