import { struct } from '../../abi/struct.ts';

/*
 * What a successor needs to go on where a supervisor was killed, in memory that the keeper holds.
 *
 * A supervisor works on copies of its state (arenas, each of a ledger). When a call has been served, each arena that it touched is
 * copied into the one of its ledger's two slots that does not count. A record says which slots are to count from now on, whose call
 * they are the result of, and what its answer is; then that record, one of two, is made to count, by one store. Only then is the call
 * answered. So however many devices a call changes, a successor finds all of them as they were before it, and serves it again, or all
 * as they are after it, and gives the answer that is noted there.
 */

/** How many ledgers there can be. */
export const MAX_LEDGERS = 96;

/** The call that the state is the result of. */
const served_call = struct('served_call', 24, {
  id_low: ['u32', 0],
  id_high: ['u32', 4],
  value: ['count', 8],
  error: ['s32', 16],
});
const RECORD_SIZE = served_call.size + MAX_LEDGERS;

/** How many commits there were. By its lowest bit the one or the other of the two records behind it counts. */
const head = struct('ledgers_head', 8, { counts: ['u32', 0] });

/** Bytes of memory that `Ledgers` takes. */
export const LEDGERS_SIZE = head.size + 2 * RECORD_SIZE;

/** Of a ledger, the slot that counts; none before its first commit. */
const Slot = { NONE: 0, FIRST: 1, SECOND: 2 } as const;
type Slot = (typeof Slot)[keyof typeof Slot];

class Record {
  readonly call: ReturnType<typeof served_call.view>;
  /** A `Slot` for each ledger. */
  readonly slots: Uint8Array;

  constructor(memory: Uint8Array) {
    this.call = served_call.view(memory);
    this.slots = memory.subarray(served_call.size, RECORD_SIZE);
  }
}

/** All ledgers of a run, and the call that was committed last. */
export class Ledgers {
  readonly #head: ReturnType<typeof head.view>;
  readonly #records: readonly [Record, Record];

  /** `memory` has `LEDGERS_SIZE` bytes, and is zero in the beginning. */
  constructor(memory: Uint8Array) {
    const record = (n: number): Record => new Record(memory.subarray(head.size + n * RECORD_SIZE));
    this.#head = head.view(memory);
    this.#records = [record(0), record(1)];
  }

  #counting(): Record {
    return this.#records[(this.#head.counts & 1) as 0 | 1];
  }

  /** How many commits there were, by which somebody else can tell that there was none meanwhile. */
  get commits(): number {
    return this.#head.counts;
  }

  /** The slot of a ledger that counts. */
  slotOf(index: number): Slot {
    return this.#counting().slots[index] as Slot;
  }

  /** True for the call whose notification begins with these words, if it was committed last: no other can be without its answer. */
  isOf(notification: Uint32Array): boolean {
    const { call } = this.#counting();
    return call.id_low === notification[0] && call.id_high === notification[1];
  }

  /** The answer to the call that was committed last: a value, and a negative errno or 0. */
  get answer(): { value: number; error: number } {
    return this.#counting().call;
  }

  /** Makes the arenas what a successor begins with: all at once, as the result of the call whose notification begins with these words. */
  commit(touched: readonly Ledger[], notification?: Uint32Array, value = 0, error = 0): void {
    const counts = (this.#head.counts & 1) as 0 | 1;
    const { call, slots } = this.#records[(1 - counts) as 0 | 1];
    slots.set(this.#records[counts].slots);
    for (const ledger of touched) slots[ledger.index] = ledger.fill();
    call.id_low = notification?.[0] ?? 0;
    call.id_high = notification?.[1] ?? 0;
    call.value = Math.max(0, value);
    call.error = error;
    this.#head.counts += 1;
  }
}

/** A commit takes a supervisor longer than a look, so a few are enough. */
const LOOKS = 1000;

/** Behind what counts at once, the two slots. */
const LIVE_SIZE = 48;

/** The state of one thing that calls change: a device, or all containers and groups. */
export class Ledger {
  readonly index: number;
  /** The working copy. */
  readonly arena: Uint8Array;
  /** Memory that counts at once, without a commit: what is under way when a supervisor is killed. */
  readonly live: Uint8Array;
  readonly #ledgers: Ledgers;
  readonly #slots: readonly [Uint8Array, Uint8Array];

  /** `memory` has `ledgerSize(arenaSize)` bytes; `index` is below `MAX_LEDGERS`, and no other ledger's. */
  constructor(ledgers: Ledgers, index: number, memory: Uint8Array, arenaSize: number) {
    const stride = strideOf(arenaSize);
    this.#ledgers = ledgers;
    this.index = index;
    this.live = memory.subarray(0, LIVE_SIZE);
    const slot = (n: number): Uint8Array => memory.subarray(SLOTS_AT + n * stride, SLOTS_AT + n * stride + arenaSize);
    this.#slots = [slot(0), slot(1)];
    this.arena = new Uint8Array(arenaSize);
    this.revert();
  }

  /** True before the first commit. */
  get isFresh(): boolean {
    return this.#ledgers.slotOf(this.index) === Slot.NONE;
  }

  /** Makes the arena what it was at the last commit, which is what a successor would begin with. */
  revert(): void {
    const slot = this.#ledgers.slotOf(this.index);
    if (slot !== Slot.NONE) this.arena.set(this.#slots[(slot - 1) as 0 | 1]);
  }

  /**
   * As revert(), for a process beside the one that commits: the arena is as of one commit. A slot that counts is written to only after the
   * next commit.
   */
  look(): void {
    for (let n = 0; n < LOOKS; n += 1) {
      const { commits } = this.#ledgers;
      this.revert();
      if (this.#ledgers.commits === commits) return;
    }
    throw new Error(`ledger ${this.index}: changes faster than it can be read`);
  }

  /** Copies the arena into the slot that does not count, and says which that is. */
  fill(): Slot {
    const next = this.#ledgers.slotOf(this.index) === Slot.FIRST ? Slot.SECOND : Slot.FIRST;
    this.#slots[(next - 1) as 0 | 1].set(this.arena);
    return next;
  }
}

const PAGE = 4096;
const SLOTS_AT = 64;
const strideOf = (arenaSize: number): number => Math.ceil(arenaSize / 64) * 64;

/** Bytes of memory that a ledger takes: whole pages. */
export function ledgerSize(arenaSize: number): number {
  return Math.ceil((SLOTS_AT + 2 * strideOf(arenaSize)) / PAGE) * PAGE;
}
