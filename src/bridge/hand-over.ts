import { ShimError } from '../error.ts';

/** Transactions that a v1 driver has taken, counted from the first on, as of the last call that was finished. */
interface Counted {
  transactions: number;
}

/** The same in memory that counts at once: the driver is being told to take this transaction; it has taken it. */
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
