import type { ErrnoName } from '../abi/errno.ts';
import { struct } from '../abi/struct.ts';
import type { ShimError } from '../error.ts';
import { simError } from './sim-error.ts';
import type { InSession, OutSession, Tape } from './tape.ts';

/** What a player remembers besides its tape. */
const tape_player = struct('tape_player', 64, {
  /** Plus one, so that fresh memory is told from state 0. */
  state_plus_one: ['u32', 0],
  session: ['u32', 4],
  /** Sessions that were begun: of saving, of loading, and all of them. */
  out: ['u32', 8],
  in: ['u32', 12],
  session_id: ['count', 16],
  /** Bytes of the session that have gone, and errors that were told. */
  position: ['count', 24],
  errors: ['u32', 32],
  /** Of v1: the buffer that is shown, in bytes. */
  shown: ['u32', 36],
});
/** How often each refusal's change was asked for: a u16 each, behind that. */
const COUNTS_AT = tape_player.size;
/** Room for them in a device's state memory. */
export const MAX_REFUSALS = 128;

export const Playing = { NONE: 0, OUT: 1, IN: 2 } as const;

/** Where a tape is, and what comes next on it. What was never recorded is refused, and said. */
export class TapePlayer {
  readonly tape: Tape;
  readonly my: ReturnType<typeof tape_player.view>;
  readonly #data: Uint8Array;
  readonly #counts: DataView;
  readonly #warn: (message: string) => void;

  constructor(tape: Tape, data: Uint8Array, state: Uint8Array, warn: (message: string) => void) {
    this.tape = tape;
    this.my = tape_player.view(state);
    this.#data = data;
    this.#counts = new DataView(state.buffer, state.byteOffset + COUNTS_AT, 2 * MAX_REFUSALS);
    this.#warn = warn;
  }

  /** A change of state is asked for: throws if the recorded driver refused it the so-manieth time. `leave` gets where that left the device. */
  changes(from: string, to: string, leave: (after: string) => void): void {
    const first = this.tape.refusals.findIndex((each) => each.from === from && each.to === to);
    if (first < 0) return;
    const nth = this.#counts.getUint16(2 * first, true) + 1;
    this.#counts.setUint16(2 * first, nth, true);
    const refusal = this.tape.refusals.find((each) => each.from === from && each.to === to && each.nth === nth);
    if (refusal === undefined) return;
    leave(refusal.after);
    throw simError(refusal.errno, `${from} to ${to} failed so when it was recorded`);
  }

  /** A session begins: the next one of its kind. */
  begin(kind: typeof Playing.OUT | typeof Playing.IN): void {
    const { my, tape } = this;
    const [used, there] = kind === Playing.OUT ? [my.out, tape.out.length] : [my.in, tape.in.length];
    if (used >= there) {
      const what = kind === Playing.OUT ? 'saved' : 'loaded';
      throw this.unrecorded('EINVAL', `the device is ${what} for the ${used + 1}. time, and was ${there} times`);
    }
    if (kind === Playing.OUT) my.out += 1;
    else my.in += 1;
    my.session = kind;
    my.session_id += 1;
    this.#rewind();
  }

  end(): void {
    this.my.session = Playing.NONE;
    this.#rewind();
  }

  #rewind(): void {
    this.my.position = 0;
    this.my.errors = 0;
    this.my.shown = 0;
  }

  get out(): OutSession {
    return inRange(this.tape.out[this.my.out - 1]);
  }

  get in(): InSession {
    return inRange(this.tape.in[this.my.in - 1]);
  }

  /** Throws what the recorded driver failed with at this place, once. */
  strike({ errors }: InSession): void {
    const { my } = this;
    const next = errors[my.errors];
    if (next === undefined || next.at > my.position) return;
    my.errors += 1;
    throw simError(next.errno, `a call on the data failed so when it was recorded, after ${next.at} bytes`);
  }

  /** The bytes of the session from where it is to `end`, at most `length` of them. */
  next(end: number, length: number): Uint8Array {
    const from = this.out.at + this.my.position;
    return this.#data.subarray(from, from + Math.max(0, Math.min(length, end - this.my.position)));
  }

  /** All of the data has gone: throws if the recorded user read no further, as what follows is not known. */
  checkEnd(): void {
    const { isWhole, bytes } = this.out;
    if (!isWhole) throw this.unrecorded('EIO', `data are read behind ${bytes} bytes, where the recorded user ended`);
  }

  /** What was still to come at this place, by the last word. */
  info(state: string): OutSession['infos'][number] | undefined {
    const { position } = this.my;
    return [...this.out.infos].reverse().find((info) => info.at <= position && info.state === state);
  }

  /** Data are given: throws if the recorded driver did not take these. */
  take(from: Uint8Array): void {
    const { my } = this;
    const session = this.in;
    this.strike(session);
    const begin = session.at + my.position;
    const known = this.#data.subarray(begin, Math.min(begin + from.length, session.at + session.bytes));
    if (Buffer.compare(known, from) !== 0)
      throw this.unrecorded('EINVAL', `other data are loaded behind ${my.position} bytes`);
    my.position += from.length;
  }

  /** RESUMING is left for a state in which the device has what was loaded. */
  checkLoaded(): void {
    const { bytes } = this.in;
    if (this.my.position < bytes) {
      throw this.unrecorded('EINVAL', `RESUMING is left after ${this.my.position} bytes, and was after ${bytes}`);
    }
  }

  /** The error for what nobody has asked the recorded driver, which whoever plays it is told of. */
  unrecorded(errno: ErrnoName, what: string): ShimError {
    this.#warn(`this was never recorded: ${what}`);
    return simError(errno, `this was never recorded: ${what}`);
  }
}

function inRange<T>(session: T | undefined): T {
  if (session === undefined) throw new RangeError('the tape has no such session');
  return session;
}
