import type { NotificationReply } from '../../sys/seccomp.ts';
import type { Caller } from '../../vfio/caller.ts';
import type { Call } from '../trap/call.ts';
import type { Ledger, Ledgers } from './ledger.ts';

/**
 * A call that is being served, and the ledgers of what it changes. They count together, once it has been served: nobody commits one of
 * them by itself.
 */
export class Turn {
  readonly answers: NotificationReply;
  readonly #ledgers: Ledgers;
  readonly #touched: Ledger[] = [];
  #call: Call;
  #stage: 'served' | 'ahead' | undefined;

  /** One object serves for all calls, one after the other; `call` is any. */
  constructor(answers: NotificationReply, ledgers: Ledgers, call: Call) {
    this.answers = answers;
    this.#ledgers = ledgers;
    this.#call = call;
  }

  get call(): Call {
    return this.#call;
  }

  /** On whose behalf devices are accessed now. */
  get caller(): Caller {
    return this.#stage === 'served' ? this.#call.id : this.#stage;
  }

  begin(call: Call): void {
    this.#call = call;
    this.#stage = 'served';
    if (this.#touched.length > 0) this.#touched.length = 0; // to set it costs more than to look
    call.begin(this.answers);
  }

  /** The call has its answer. What follows is for its caller's next. */
  goAhead(): void {
    this.#stage = 'ahead';
  }

  end(): void {
    this.#stage = undefined;
  }

  /** The call changes this, or may change it. */
  touch(ledger: Ledger): void {
    if (!this.#touched.includes(ledger)) this.#touched.push(ledger);
  }

  /** What the call changes, or may change. */
  get touched(): readonly Ledger[] {
    return this.#touched;
  }

  get hasTouched(): boolean {
    return this.#touched.length > 0;
  }

  /**
   * Makes what the call has changed so far count, though it has not been answered: a successor serves it again from there. For what
   * must be known before somebody sees what the call does next.
   */
  settle(): void {
    this.#ledgers.commit(this.#touched);
  }

  /** Makes what the call has changed count as its result. */
  commit(value: number, error: number): void {
    if (this.hasTouched) this.#ledgers.commit(this.#touched, this.#call.words, value, error);
  }
}
