import { ShimError } from '../error.ts';

/**
 * How far an access has come that a v1 driver does not forget, though the bridge's state may be that of before the call. It counts
 * buffers and transactions: a number that is one ahead of the state's tells what a killed predecessor had begun. The first 32 bytes of
 * the memory that counts at once.
 */
export const liveFields = {
  /** Bytes are pending, and data_offset may have shown this buffer of them. */
  asked: ['count', 0],
  /** The driver is being told to take this transaction; it has taken it. */
  handing: ['count', 8],
  handed: ['count', 16],
  /** What is left of this buffer is in memory of the bridge's: a change of state may have overwritten it in the region. */
  kept: ['count', 24],
} as const;

/** Transactions that a v1 driver has taken, counted from the first on, as of the last call that was finished. */
interface Counted {
  transactions: number;
}

/** The same of `liveFields`. */
interface Handing {
  handing: number;
  handed: number;
}

/** Has a v1 driver take the next transaction, once: a predecessor of this process may have been killed over it. */
export function handOver(my: Counted, live: Handing, hand: () => void): void {
  const transaction = my.transactions + 1;
  if (!isHanded(my, live)) {
    checkHanded(my, live);
    live.handing = transaction;
    try {
      hand();
    } catch (error) {
      live.handing = 0;
      throw error;
    }
    live.handed = transaction;
  }
  my.transactions = transaction;
}

/** True if a predecessor has handed the next transaction over, and was killed before that counted. */
export function isHanded({ transactions }: Counted, { handed }: Handing): boolean {
  return handed > transactions;
}

/** Throws `EIO`, until the device is reset, if a predecessor was killed in the one access of which nothing tells the end. */
export function checkHanded({ transactions }: Counted, { handing, handed }: Handing): void {
  if (handing <= transactions || handed === handing) return;
  throw new ShimError(
    'ERR_SESSION_ENDED',
    'migration data: a supervisor was killed while the driver took data; nobody can tell whether it did',
    { errno: 'EIO' },
  );
}
