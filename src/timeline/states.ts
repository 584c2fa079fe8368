import type { Protocol } from '../device/migratable.ts';
import type { DeviceCall } from '../recording/format.ts';
import { phaseOf, type Phase } from './phases.ts';

/** A state of a device, from when a call that brought it there was answered, or showed it there. */
export interface Span {
  readonly phase: Phase;
  /** As its protocol names it. */
  readonly state: string;
  /** When that call began: a VMM has stopped its processors by then. */
  readonly asked: number;
  readonly begin: number;
  readonly end: number;
}

/** Whom the states are told to, or by. */
export type Side = 'vmm' | 'driver';

/** The states of one side of a device, in order. */
export interface Row {
  readonly side: Side;
  /** Undefined if it was opened, and no more. */
  readonly protocol: Protocol | undefined;
  readonly spans: readonly Span[];
  /** How many changes are not among them, as they were too many. */
  readonly omitted: number;
}

/** No row has more changes, which is more than a picture can show. */
const MAX_SPANS = 2048;

/** The state that a call has shown a device in, or has brought it to. */
function stateIn(call: DeviceCall): string | undefined {
  if (call.errno !== undefined) return undefined;
  switch (call.call) {
    case 'get-state':
    case 'set-state':
    case 'register':
      return call.state;
    case 'reset':
      return 'RUNNING';
    default:
      return undefined;
  }
}

/** Makes a row of the calls on one side. */
export class RowMaker {
  readonly #side: Side;
  #protocol: Protocol | undefined;
  readonly #spans: Omit<Span, 'end'>[] = [];
  /** What the device is in, whether or not there is a span of it. */
  #now: Omit<Span, 'end'> | undefined;
  /** When the first change was omitted: the row goes no further. */
  #full: number | undefined;
  #omitted = 0;

  constructor(side: Side) {
    this.#side = side;
  }

  /** A device that a VMM gets runs. */
  opened(time: number): void {
    this.#to('running', 'RUNNING', time, time);
  }

  /** `asked`: when what the call was made for began; `time`: when it ended. */
  call(call: DeviceCall, asked: number, time: number): void {
    const state = stateIn(call);
    if (state === undefined) return;
    this.#protocol ??= call.protocol;
    this.#to(phaseOf(call.protocol, state, this.#now?.phase), state, asked, time);
  }

  /** The row, which goes on to `end`. */
  ended(end: number): Row {
    const last = this.#full ?? Math.max(end, this.#now?.begin ?? end);
    const spans = this.#spans.map((span, n) => ({ ...span, end: this.#spans[n + 1]?.begin ?? last }));
    return { side: this.#side, protocol: this.#protocol, spans, omitted: this.#omitted };
  }

  #to(phase: Phase, state: string, asked: number, time: number): void {
    const last = this.#now;
    if (last?.state === state && last.phase === phase) return;
    const begin = Math.max(time, last?.begin ?? 0); // threads of a VMM are answered in any order
    this.#now = { phase, state, asked: Math.min(asked, begin), begin };
    if (this.#spans.length < MAX_SPANS) {
      this.#spans.push(this.#now);
      return;
    }
    this.#full ??= begin;
    this.#omitted += 1;
  }
}
