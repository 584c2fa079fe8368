import { isUnderWay, ShimError } from '../error.ts';

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

/** Has a v1 driver take each transaction once, wherever a predecessor of this process was killed over it. */
export class HandOver {
  readonly #my: Counted;
  readonly #live: Handing;
  /** The transaction that the driver is taking, of which this process will be told the end. */
  #underWay = 0;

  constructor(my: Counted, live: Handing) {
    this.#my = my;
    this.#live = live;
  }

  /** The next transaction. If the driver is still taking it ("not yet"), this is to be repeated. */
  hand(tell: () => void): void {
    const live = this.#live;
    const transaction = this.#my.transactions + 1;
    if (!this.isHanded) {
      this.check();
      live.handing = transaction;
      try {
        tell();
      } catch (error) {
        if (isUnderWay(error)) this.#underWay = transaction;
        else live.handing = 0;
        throw error;
      }
      live.handed = transaction;
    }
    this.#my.transactions = transaction;
  }

  /** True if a predecessor has handed the next transaction over, and was killed before that counted. */
  get isHanded(): boolean {
    return this.#live.handed > this.#my.transactions;
  }

  /** Throws `EIO`, until the device is reset, if a predecessor was killed in the one access of which nothing tells the end. */
  check(): void {
    const { handing, handed } = this.#live;
    if (handing <= this.#my.transactions || handed === handing || handing === this.#underWay) return;
    throw new ShimError(
      'ERR_SESSION_ENDED',
      'migration data: a supervisor was killed while the driver took data; nobody can tell whether it did',
      { errno: 'EIO' },
    );
  }
}
