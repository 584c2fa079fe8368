import { struct } from '../../abi/struct.ts';
import { stateIn, type DeviceEvent } from '../../device/device-event.ts';
import type { Protocol } from '../../device/migratable.ts';

/*
 * How far a device's migration is, of calls on the driver itself: the supervisor notes numbers, in the device's arena, and the keeper
 * makes of them what `--status` shows. A driver of a draft has states, and no bytes.
 */

const device_progress = struct('device_progress', 144, {
  /** The number of the state that the driver was last seen in, and 1 more; 0 if it was in none. */
  state: ['u32', 0],
  /** A `Phase`. */
  phase: ['u8', 4],
  /** The v1 buffer that is shown has been counted. */
  counted: ['u8', 5],
  /** These are known: `left`, `stop_copy`, `first_told`; there was a session, and a piece of data in it. */
  has_left: ['u8', 6],
  has_stop_copy: ['u8', 7],
  has_told: ['u8', 8],
  has_begun: ['u8', 9],
  has_piece: ['u8', 10],
  /** Bytes of the session that goes on, or of the last one. */
  done: ['count', 16],
  /** What the driver has said is left of the state that the device is in, and what was done by then. */
  left: ['count', 24],
  left_done: ['count', 32],
  /** What the driver has said of stop-and-copy, and what was done when that counts from. */
  stop_copy: ['count', 40],
  stop_copy_done: ['count', 48],
  /** In pre-copy: how much more was left than what had been told less what was done, between these two times. */
  dirtied: ['count', 56],
  first_told: ['count', 64],
  last_told: ['count', 72],
  /** When the last piece of data came; for how long they have come one after the other, and how many bytes in that time. */
  last_piece: ['count', 80],
  flowing: ['count', 88],
  flowed: ['count', 96],
  /** Two values of `flowing` from which the rate is reckoned, the earlier one first, and what had flowed by then. */
  earlier: ['count', 104],
  earlier_flowed: ['count', 112],
  later: ['count', 120],
  later_flowed: ['count', 128],
});

const Phase = { NONE: 0, SAVING: 1, LOADING: 2 } as const;
type Phase = (typeof Phase)[keyof typeof Phase];

/** The states in which there are data, by the names that v1 and v2 have for them. */
const phases: Readonly<Record<string, Phase>> = {
  PRE_COPY: Phase.SAVING,
  PRE_COPY_P2P: Phase.SAVING,
  STOP_COPY: Phase.SAVING,
  RESUMING: Phase.LOADING,
};

/** After so many microseconds a rate is reckoned from a later moment. */
const WINDOW = 1_000_000;
/** If more microseconds than these pass from one piece of data to the next, the VMM has done something else. */
const BREAK = 1_000_000;
const MOST = Number.MAX_SAFE_INTEGER;

/** Numbers come from drivers: no sum of them is more than this program can count. */
const sum = (a: number, b: number): number => Math.min(MOST, a + b);
const less = (a: number, b: number): number => Math.max(0, a - b);

/** Notes what the calls on a driver tell. The times of the events must be those of a clock. */
export class ProgressCounter {
  readonly #my: ReturnType<typeof device_progress.view>;
  readonly #numbers: Readonly<Record<string, number>>;
  readonly #isDraft: boolean;

  /** `numbers`: of the protocol's states. */
  constructor(memory: Uint8Array, protocol: Protocol, numbers: Readonly<Record<string, number>>) {
    this.#my = device_progress.view(memory);
    this.#numbers = numbers;
    this.#isDraft = protocol !== 'v1' && protocol !== 'v2';
  }

  ofDriver(event: DeviceEvent): void {
    const state = stateIn(event);
    if (state !== undefined) this.#in(state);
    if (event.errno !== undefined || this.#isDraft) return;
    switch (event.call) {
      case 'data':
        if (event.protocol === 'v2') this.#moved(event.bytes ?? 0, event.time);
        return;
      case 'precopy-info':
        this.#told(sum(event.initialBytes ?? 0, event.dirtyBytes ?? 0), event.time);
        return;
      case 'data-size':
        this.#my.has_stop_copy = 1;
        this.#my.stop_copy = event.bytes ?? 0;
        this.#my.stop_copy_done = this.#my.done;
        return;
      case 'register':
        this.#ofRegister(event);
        return;
      default:
    }
  }

  #ofRegister(event: Extract<DeviceEvent, { call: 'register' }>): void {
    const my = this.#my;
    const { access, register, time } = event;
    const value = event.value ?? 0;
    if (register === 'pending_bytes' && access === 'read') {
      my.counted = 0;
      this.#told(value, time);
    } else if (register === 'data_size') {
      if (access === 'write') this.#moved(value, time);
      else if (my.counted === 0 && value > 0) {
        my.counted = 1; // it is shown until pending_bytes is read, however often its size is read
        this.#moved(value, time);
      }
    }
  }

  /** The device is in a state; a session begins if it comes from one without data, or with such that go the other way. */
  #in(name: string): void {
    const number = this.#numbers[name];
    const my = this.#my;
    if (number === undefined || my.state === number + 1) return;
    my.state = number + 1;
    const phase = (!this.#isDraft && phases[name]) || Phase.NONE;
    if (phase !== Phase.NONE && phase !== my.phase) this.#begin();
    my.phase = phase;
    if (name === 'STOP_COPY') {
      my.stop_copy_done = my.done;
      my.has_told = 0;
    }
  }

  #begin(): void {
    const my = this.#my;
    my.has_begun = 1;
    my.counted = 0;
    my.has_left = 0;
    my.has_stop_copy = 0;
    my.has_told = 0;
    my.done = 0;
    my.dirtied = 0;
    my.has_piece = 0;
    my.flowing = 0;
    my.flowed = 0;
    my.earlier = 0;
    my.earlier_flowed = 0;
    my.later = 0;
    my.later_flowed = 0;
  }

  #moved(bytes: number, time: number): void {
    const my = this.#my;
    if (my.phase === Phase.NONE) return;
    my.done = sum(my.done, bytes);
    const passed = less(time, my.last_piece);
    if (my.has_piece === 1 && passed <= BREAK) this.#flow(bytes, passed);
    my.has_piece = 1;
    my.last_piece = time;
  }

  /** A piece has come in so much time after the one before. How long the first one took is not known. */
  #flow(bytes: number, microseconds: number): void {
    const my = this.#my;
    if (my.flowing - my.later >= WINDOW) {
      my.earlier = my.later;
      my.earlier_flowed = my.later_flowed;
      my.later = my.flowing;
      my.later_flowed = my.flowed;
    }
    my.flowing += microseconds;
    my.flowed = sum(my.flowed, bytes);
  }

  /** The driver says how much is left; what is more than should be has become dirty. */
  #told(left: number, time: number): void {
    const my = this.#my;
    if (my.phase !== Phase.SAVING) return;
    if (my.has_told === 0) {
      my.has_told = 1;
      my.first_told = time;
      my.dirtied = 0;
    } else my.dirtied = sum(my.dirtied, less(left, less(my.left, my.done - my.left_done)));
    my.last_told = time;
    my.has_left = 1;
    my.left = left;
    my.left_done = my.done;
  }
}

/** Of one device, as docs/status.md has it. */
export interface Progress {
  readonly phase: 'saving' | 'loading' | null;
  readonly bytesDone: number | null;
  readonly bytesLeft: number | null;
  readonly bytesPerSecond: number | null;
  readonly stopCopyBytes: number | null;
  readonly downtimeMs: number | null;
  readonly dirtyBytesPerSecond: number | null;
}

const NOTHING: Progress = {
  phase: null,
  bytesDone: null,
  bytesLeft: null,
  bytesPerSecond: null,
  stopCopyBytes: null,
  downtimeMs: null,
  dirtyBytesPerSecond: null,
};

/** The number of the state that a driver was last seen in. */
export function stateNoted(memory: Uint8Array): number | undefined {
  const { state } = device_progress.view(memory);
  return state === 0 ? undefined : state - 1;
}

/** What was noted. `isStopped`: the device is in STOP_COPY. */
export function progressIn(memory: Uint8Array, protocol: Protocol, isStopped: boolean): Progress {
  const my = device_progress.view(memory);
  if (my.has_begun === 0) return NOTHING;
  if (my.phase === Phase.NONE) return { ...NOTHING, bytesDone: my.done };
  const bytesPerSecond = rate(less(my.flowed, my.earlier_flowed), my.flowing - my.earlier);
  if (my.phase === Phase.LOADING) return { ...NOTHING, phase: 'loading', bytesDone: my.done, bytesPerSecond };
  const left = my.has_left === 0 ? null : less(my.left, my.done - my.left_done);
  const stopCopyBytes = protocol === 'v1' ? left : stopCopyLeft(my, isStopped);
  return {
    phase: 'saving',
    bytesDone: my.done,
    bytesLeft: protocol === 'v2' && isStopped ? stopCopyBytes : left,
    bytesPerSecond,
    stopCopyBytes,
    downtimeMs: time(stopCopyBytes, bytesPerSecond),
    dirtyBytesPerSecond: isStopped || my.has_told === 0 ? null : rate(my.dirtied, less(my.last_told, my.first_told)),
  };
}

function stopCopyLeft(my: ReturnType<typeof device_progress.view>, isStopped: boolean): number | null {
  if (my.has_stop_copy === 0) return null;
  return isStopped ? less(my.stop_copy, my.done - my.stop_copy_done) : my.stop_copy;
}

/** `null` if there was no time in which it could have been measured. */
function rate(bytes: number, microseconds: number): number | null {
  return microseconds === 0 ? null : Math.min(MOST, Math.round((bytes / microseconds) * 1e6));
}

function time(bytes: number | null, bytesPerSecond: number | null): number | null {
  if (bytes === null || bytesPerSecond === null || bytesPerSecond === 0) return null;
  return Math.min(MOST, Math.round((bytes / bytesPerSecond) * 1000));
}
