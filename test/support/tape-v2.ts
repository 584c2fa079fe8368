import { ShimError } from '../../src/error.ts';
import type { PrecopyInfo, V2DataSession, V2Device } from '../../src/v2/device.ts';
import { statePath } from '../../src/v2/fsm.ts';
import { isPreCopy, isSaving, V2, type V2State } from '../../src/v2/states.ts';
import { failure } from './errno.ts';

/** One answer of the data fd: bytes, `0`, a negative or too large count as it stands, or an error. */
export type Answer = Uint8Array | number | ShimError;

export interface TapeV2Options {
  readonly flags?: number;
  /** What reads answer, one after another; bytes are handed out across reads that ask for fewer. Then 0. */
  readonly answers?: Answer[];
  /** What is read in STOP_COPY, once `answers` is used up; until then they go on. */
  readonly stopAnswers?: Answer[];
  readonly precopyInfo?: PrecopyInfo;
  /** MIG_DATA_SIZE; undefined if the driver has none. */
  readonly stopCopyLength?: number;
}

/**
 * A v2 device that plays back what a test wrote down: for answers that the simulated drivers do not give, and for sizes
 * that nobody has memory for. `taken` is what was written into its data fd.
 */
export class TapeV2 implements V2Device {
  readonly migrationFlags: number;
  state: V2State = V2.RUNNING;
  readonly taken: Uint8Array[] = [];
  readonly answers: Answer[];
  readonly stopAnswers: Answer[];
  /** Errors of the next calls of setState, each by the hop that it strikes before. */
  readonly failingHops: { readonly hop: V2State; readonly error: ShimError; readonly fatal?: boolean }[] = [];
  /** What the next writes answer; undefined takes all. */
  readonly writeAnswers: (number | ShimError | undefined)[] = [];
  info: PrecopyInfo;
  length: number | undefined;
  #epoch = 0;
  #open = false;

  constructor(options: TapeV2Options = {}) {
    this.migrationFlags = options.flags ?? 7;
    this.answers = options.answers ?? [];
    this.stopAnswers = options.stopAnswers ?? [];
    this.info = options.precopyInfo ?? { initialBytes: 0, dirtyBytes: 0 };
    this.length = options.stopCopyLength;
  }

  getState(): V2State {
    return this.state;
  }

  setState(target: V2State): V2DataSession | undefined {
    const epoch = this.#epoch;
    for (const hop of statePath(this.migrationFlags, this.state, target)) {
      const failing = this.failingHops[0];
      if (failing?.hop === hop) {
        this.failingHops.shift();
        if (failing.fatal === true) this.#enter(V2.ERROR);
        throw failing.error;
      }
      this.#enter(hop);
    }
    return epoch === this.#epoch ? undefined : this.openSession();
  }

  openSession(): V2DataSession | undefined {
    return this.#open ? this.#session(this.#epoch) : undefined;
  }

  stopCopyLength(): number {
    if (this.length === undefined) throw failure('ENOTTY');
    return this.length;
  }

  reset(): void {
    this.#enter(V2.RUNNING);
  }

  /** The device fails by itself. */
  fail(): void {
    this.#enter(V2.ERROR);
  }

  #enter(to: V2State): void {
    const kind = (state: V2State): number => (isSaving(state) ? 1 : state === V2.RESUMING ? 2 : 0);
    if (kind(this.state) !== kind(to)) {
      this.#epoch += 1;
      this.#open = kind(to) !== 0;
    }
    this.state = to;
  }

  #session(epoch: number): V2DataSession {
    const check = (): void => {
      if (epoch !== this.#epoch || !this.#open) throw failure('ENODEV', 'ERR_SESSION_ENDED');
    };
    return {
      read: (into) => {
        check();
        return this.#read(into);
      },
      write: (from) => {
        check();
        const answer = this.writeAnswers.shift();
        if (answer instanceof ShimError) throw answer;
        const length = answer ?? from.length;
        this.taken.push(from.slice(0, Math.max(0, Math.min(length, from.length))));
        return length;
      },
      precopyInfo: () => {
        check();
        if (!isPreCopy(this.state)) throw failure('EINVAL');
        return this.info;
      },
      close: () => {
        // nothing to release
      },
    };
  }

  #read(into: Uint8Array): number {
    const answers = this.answers.length === 0 && this.state === V2.STOP_COPY ? this.stopAnswers : this.answers;
    const answer = answers.shift();
    if (answer === undefined) return 0;
    if (answer instanceof ShimError) throw answer;
    if (typeof answer === 'number') return answer;
    const piece = answer.subarray(0, into.length);
    into.set(piece);
    if (piece.length < answer.length) answers.unshift(answer.subarray(piece.length));
    return piece.length;
  }
}
