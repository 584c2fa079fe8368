import type { PointingArgument } from '../argument.ts';
import type { IovaRange } from '../dma-log.ts';
import type { WindowLog } from './window-log.ts';

/** Of a bitmap, what is made at once, in bytes. */
const PIECE = 1024 * 1024;

/** Where the bitmap of a range lies in the caller's memory, and how it is written there. */
export interface BitmapPlace {
  readonly data: bigint;
  /** Bytes that one bit stands for, a power of two. */
  readonly pageSize: bigint;
  /** The bits that are set there already stay, and a piece without any of ours is not written. */
  readonly adds: boolean;
}

/** Writes the bitmap of a range, in pieces of our own size. What could not be told is told the next time. */
export function writeDirtyBitmap(
  argument: PointingArgument,
  { data, pageSize, adds }: BitmapPlace,
  range: IovaRange,
  logs: readonly WindowLog[],
): void {
  const pages = (range.length + pageSize - 1n) / pageSize;
  const needed = ((pages + 63n) / 64n) * 8n;
  for (const log of logs) log.collect(range);
  const bits = new Uint8Array(Math.min(PIECE, Number(needed)));
  try {
    for (let done = 0n; done < needed; done += BigInt(bits.length)) {
      const left = needed - done;
      const piece = left < bits.length ? bits.subarray(0, Number(left)) : bits;
      const skipped = done * 8n * pageSize;
      const rest = range.length - skipped;
      const whole = BigInt(piece.length) * 8n * pageSize;
      piece.fill(0);
      const part = { iova: range.iova + skipped, length: rest < whole ? rest : whole };
      const told = logs.map((log) => log.tell(part, { pageSize, bits: piece }));
      if (adds && !told.includes(true)) continue;
      if (adds) mix(piece, argument.readAt(data + done, piece.length));
      argument.writeAt(data + done, piece);
    }
  } catch (error) {
    for (const log of logs) log.giveBack();
    throw error;
  }
}

function mix(bits: Uint8Array, others: Uint8Array): void {
  for (const [n, byte] of others.entries()) bits[n] = (bits[n] ?? 0) | byte;
}
