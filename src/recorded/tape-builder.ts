import type { ErrnoName } from '../abi/errno.ts';
import { VFIO_MIGRATION_P2P, VFIO_MIGRATION_PRE_COPY, VFIO_MIGRATION_STOP_COPY } from '../abi/vfio-v2.ts';
import type { DataBytes, DeviceCall } from '../recording/format.ts';
import type { InSession, OutSession, Refusal, Tape } from '../sim/tape.ts';
import { SessionBuilder, type Piece } from './session-builder.ts';

type V1Call = Extract<DeviceCall, { readonly protocol: 'v1' }>;
type V2Call = Extract<DeviceCall, { readonly protocol: 'v2' }>;

/** Makes a tape of the calls on a driver, which are told in order. */
export class TapeBuilder {
  readonly #protocol: Tape['protocol'];
  readonly #sessions: SessionBuilder[] = [];
  readonly #refusals: Refusal[] = [];
  readonly #requests = new Map<string, number>();
  readonly #dataSizes: Record<string, number> = {};
  readonly #seen = new Set<string>();
  #state = 'RUNNING';
  #session: SessionBuilder | undefined;
  /** Of v1: the buffer that is shown has been counted. */
  #isCounted = false;

  constructor(protocol: Tape['protocol']) {
    this.#protocol = protocol;
  }

  /** A call on the driver, made so often in a row. "Not yet" says nothing that time does not. */
  called(call: DeviceCall, times: number): void {
    if (call.errno === 'EAGAIN') return;
    if (call.protocol === 'v2') this.#calledV2(call, times);
    else if (call.protocol === 'v1') this.#calledV1(call);
  }

  /** Data that have passed the user of the device: of the session that is open, or was open last. */
  passed(direction: 'out' | 'in', data: DataBytes, line: number): void {
    const session = [...this.#sessions].reverse().find((each) => each.direction === direction);
    session?.passed(data, line);
  }

  #calledV2(call: V2Call, times: number): void {
    switch (call.call) {
      case 'get-state':
        if (call.state !== undefined) this.#found(call.state);
        return;
      case 'set-state':
        if (call.errno !== undefined) this.#refused(call.state, call.errno);
        else {
          this.#request(call.state);
          if (call.session) this.#begin(call.state === 'RESUMING' ? 'in' : 'out');
          this.#found(call.state);
        }
        return;
      case 'data-size':
        if (call.bytes !== undefined) this.#dataSizes[this.#state] = call.bytes;
        return;
      case 'precopy-info':
        if (call.errno !== undefined) return;
        this.#session?.told({ state: 'PRE_COPY', initialBytes: call.initialBytes, dirtyBytes: call.dirtyBytes });
        return;
      case 'data':
        this.#moved(call, times);
        return;
      case 'reset':
        this.#reset();
        return;
      case 'precopy-info-v2':
        return;
    }
  }

  #moved({ direction, errno, bytes }: Extract<V2Call, { readonly call: 'data' }>, times: number): void {
    const session = this.#session;
    if (session?.direction !== direction) return;
    if (errno === 'ENOMSG') session.nothingNow();
    else if (errno !== undefined) session.failed(errno);
    else if (direction === 'in') return;
    else if (bytes > 0) session.gave(bytes * times, isPreCopy(this.#state));
    else if (this.#state === 'STOP_COPY') session.ended();
  }

  #calledV1(call: V1Call): void {
    if (call.call === 'reset') this.#reset();
    if (call.call !== 'register') return;
    const { register, access, errno, value } = call;
    if (register === 'device_state') {
      const state = call.state ?? '';
      if (access === 'read') {
        if (errno === undefined) this.#found(state);
      } else if (errno !== undefined) this.#refused(state, errno);
      else this.#enterV1(state);
      return;
    }
    const session = this.#session;
    if (register === 'pending_bytes') this.#isCounted = false;
    if (errno !== undefined) session?.failed(errno);
    else if (access === 'read' && session?.direction === 'out') this.#readV1(session, register, value);
  }

  #readV1(session: SessionBuilder, register: string, value: number): void {
    if (register === 'pending_bytes') {
      session.told({ state: this.#state, initialBytes: value, dirtyBytes: 0 });
      if (value === 0 && this.#state === 'STOP_COPY') session.ended();
    } else if (register === 'data_size' && value > 0 && !this.#isCounted) {
      this.#isCounted = true;
      session.gave(value, isPreCopy(this.#state));
    }
  }

  #enterV1(state: string): void {
    this.#request(state);
    const goesOn = state === this.#state || (this.#state === 'PRE_COPY' && state === 'STOP_COPY');
    if (!goesOn && isSaving(state)) this.#begin('out');
    if (!goesOn && state === 'RESUMING') this.#begin('in');
    if (state !== 'STOP_COPY') this.#isCounted = false;
    this.#found(state);
  }

  #begin(direction: 'out' | 'in'): void {
    this.#session = new SessionBuilder(direction);
    this.#sessions.push(this.#session);
  }

  #reset(): void {
    this.#session = undefined;
    this.#isCounted = false;
    this.#found('RUNNING');
  }

  /** The driver is in this state: where the last change that failed has left it, too. */
  #found(state: string): void {
    const last = this.#refusals.at(-1);
    if (last?.after === '') this.#refusals.splice(-1, 1, { ...last, after: state });
    const direction = isSaving(state) ? 'out' : state === 'RESUMING' ? 'in' : undefined;
    if (this.#session?.direction !== direction) this.#session = undefined;
    this.#state = state;
    this.#seen.add(state);
  }

  #request(to: string): number {
    const change = `${this.#state} ${to}`;
    const nth = (this.#requests.get(change) ?? 0) + 1;
    this.#requests.set(change, nth);
    return nth;
  }

  #refused(to: string, errno: ErrnoName): void {
    const nth = this.#request(to);
    this.#refusals.push({ from: this.#state, to, nth, errno, after: '' });
  }

  /** The tape, and what of the recording's data is on it. */
  get result(): { readonly tape: Tape; readonly pieces: readonly Piece[] } {
    const out: OutSession[] = [];
    const loaded: InSession[] = [];
    let at = 0;
    for (const session of this.#sessions) {
      if (session.direction === 'out') out.push(session.out(at));
      else loaded.push(session.in(at));
      at += session.pieces.reduce((sum, { data }) => sum + data.bytes, 0);
    }
    const refusals = this.#refusals.map((each) => (each.after === '' ? { ...each, after: each.from } : each));
    const tape: Tape = {
      protocol: this.#protocol,
      migrationFlags: flagsOf(this.#seen),
      out,
      in: loaded,
      refusals,
      dataSizes: this.#dataSizes,
    };
    return { tape, pieces: this.#sessions.flatMap(({ pieces }) => pieces) };
  }
}

function isPreCopy(state: string): boolean {
  return state === 'PRE_COPY' || state === 'PRE_COPY_P2P';
}

function isSaving(state: string): boolean {
  return isPreCopy(state) || state === 'STOP_COPY';
}

/** A recording has no flags: those of the states that were seen. */
function flagsOf(seen: ReadonlySet<string>): number {
  const has = (...states: string[]): boolean => states.some((state) => seen.has(state));
  return (
    VFIO_MIGRATION_STOP_COPY |
    (has('PRE_COPY', 'PRE_COPY_P2P') ? VFIO_MIGRATION_PRE_COPY : 0) |
    (has('RUNNING_P2P', 'PRE_COPY_P2P') ? VFIO_MIGRATION_P2P : 0)
  );
}
