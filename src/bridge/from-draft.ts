import { isNotReady, ShimError } from '../error.ts';
import type { Draft, DraftDevice } from '../v1/drafts/device.ts';
import { DraftAccess } from '../v1/drafts/registers.ts';
import { draftStateName, S2018, S2019, type State2018, type State2019 } from '../v1/drafts/states.ts';
import type { V1Device } from '../v1/device.ts';
import { DATA_OFFSET, V1Region, type V1Registers } from '../v1/region.ts';
import { isV1Transition, V1, v1StateName, type V1State } from '../v1/states.ts';
import { from_draft_state, FROM_DRAFT_STATE_SIZE, type FromDraftState } from './from-draft-state.ts';
import type { Warn } from './warn.ts';

/** Options of fromDraft(). */
export interface FromDraftOptions {
  /** Default: nobody is told. */
  readonly warn?: Warn;
  /** `FROM_DRAFT_STATE_SIZE` bytes: everything the bridge remembers. */
  readonly state?: Uint8Array;
}

/**
 * Shows a device of a draft as a v1 device: its data section as it is, with other registers before it. presentV2 makes a v2 device of
 * that.
 */
export function fromDraft(device: DraftDevice, options: FromDraftOptions = {}): V1Device {
  const driver = device.draft === 'draft-2018' ? new Driver2018(device) : new Driver2019(device);
  return new V1Region(new FromDraft(device, driver, options), device.mapped);
}

/** A driver of one of the drafts, as far as they differ. */
interface DraftDriver {
  /** The v1 state that a driver shows which was brought into `expected`: another one if it was reset since, or has failed. */
  state(expected: V1State, my: FromDraftState): V1State;
  /** Brings the driver from one v1 state to another. Throws, before anything is written, if there is no way. */
  bring(from: V1State, to: Exclude<V1State, 6>, my: FromDraftState): void;
  /** What is pending, in a saving state. The buffer that was shown is taken. */
  pending(state: V1State, my: FromDraftState): number;
  /** The next buffer: a place in the driver's region. */
  buffer(my: FromDraftState): { offset: number; size: number };
  /** Has the driver take a buffer. "Not yet" is thrown: the call is repeated. */
  load(offset: number, size: number, my: FromDraftState): void;
}

class FromDraft implements V1Registers {
  readonly #device: DraftDevice;
  readonly #driver: DraftDriver;
  readonly #my: FromDraftState;
  readonly #warn: Warn | undefined;

  constructor(device: DraftDevice, driver: DraftDriver, options: FromDraftOptions) {
    this.#device = device;
    this.#driver = driver;
    this.#my = from_draft_state.view(options.state ?? new Uint8Array(FROM_DRAFT_STATE_SIZE));
    this.#warn = options.warn;
  }

  readDeviceState(): number {
    return this.#state();
  }

  #state(): V1State {
    const my = this.#my;
    const expected = (my.v1_plus_one === 0 ? V1.RUNNING : my.v1_plus_one - 1) as V1State;
    const found = this.#driver.state(expected, my);
    if (found !== expected) {
      this.#warn?.(
        `${this.#device.draft} driver: was brought into ${v1StateName(expected)} and is in ${v1StateName(found)}`,
      );
      this.#arrive(found);
    }
    return found;
  }

  #arrive(state: V1State): void {
    const my = this.#my;
    const goesOn = my.v1_plus_one - 1 === V1.PRE_COPY && state === V1.STOP_COPY;
    my.v1_plus_one = state + 1;
    if (goesOn) return; // with a buffer that is shown and not acknowledged
    my.shown = 0;
    my.pending = 0;
    my.offset_written = 0;
  }

  writeDeviceState(value: number): void {
    const from = this.#state();
    if (!isV1Transition(from, value)) {
      throw new ShimError(
        'ERR_TRANSITION',
        `device_state: ${v1StateName(from)} does not lead to ${v1StateName(value)}`,
        {
          errno: 'EINVAL',
        },
      );
    }
    if (value === from && value !== V1.RUNNING) return; // who was told of a loss acknowledges it by that
    this.#driver.bring(from, value, this.#my);
    this.#arrive(value);
  }

  readPendingBytes(): number {
    const state = this.#state();
    if (!isSaving(state)) return 0;
    const my = this.#my;
    const pending = this.#driver.pending(state, my);
    my.shown = 0;
    return pending;
  }

  readDataOffset(): number {
    if (!isSaving(this.#state())) return DATA_OFFSET;
    this.#show();
    return this.#my.offset - this.#device.dataSection.offset + DATA_OFFSET;
  }

  readDataSize(): number {
    if (!isSaving(this.#state())) return 0;
    this.#show();
    return this.#my.size;
  }

  /** Asks for the buffer, once: a draft takes the second question for an acknowledgement. */
  #show(): void {
    const my = this.#my;
    if (my.shown === 1) return;
    const { offset, size } = this.#driver.buffer(my);
    const { dataSection } = this.#device;
    const at = offset - dataSection.offset;
    if (size > 0 && (at < 0 || at > dataSection.size || size > dataSection.size - at)) {
      throw new ShimError(
        'ERR_DEVICE',
        `${this.#device.draft} driver: shows ${size} bytes at ${offset}, the data section has ${dataSection.size} at ${dataSection.offset}`,
        { errno: 'EIO' },
      );
    }
    my.offset = size > 0 ? offset : dataSection.offset;
    my.size = size;
    my.shown = 1;
  }

  writeDataSize(size: number): void {
    if (this.#state() !== V1.RESUMING) {
      throw new ShimError('ERR_ACCESS', 'write of data_size: the device is not resuming', { errno: 'EINVAL' });
    }
    if (size > 0) this.#driver.load(this.#device.dataSection.offset, size, this.#my);
  }

  reset(): void {
    this.#device.reset();
    this.#my.unread = 0;
    this.#arrive(V1.RUNNING);
  }
}

function isSaving(state: V1State): boolean {
  return state === V1.PRE_COPY || state === V1.STOP_COPY;
}

type Way<S> = readonly S[] | string;

const HAS_RUN = 'it was saved and has not run since: let it run first';
const NEVER_RUN = 'it was loaded and has never run: let it run first';
const NOT_V1 = 'v1 has no such way';

/** The v1 states; of STOP, what the driver is in: MIGRATION_STOPNCOPY, of which nothing was read, SAVE_COMPLETED or RESUME_COMPLETED. */
type Place2018 = Exclude<V1State, 6> | 'UNREAD' | 'LOADED' | 'SAVED';

const meaning2018: Readonly<Record<State2018, V1State>> = {
  [S2018.NONE]: V1.STOP,
  [S2018.RUNNING]: V1.RUNNING,
  [S2018.MIGRATION_SETUP]: V1.RUNNING,
  [S2018.MIGRATION_PRECOPY]: V1.PRE_COPY,
  [S2018.MIGRATION_STOPNCOPY]: V1.STOP_COPY,
  [S2018.MIGRATION_SAVE_COMPLETED]: V1.STOP,
  [S2018.MIGRATION_RESUME]: V1.RESUMING,
  [S2018.MIGRATION_RESUME_COMPLETED]: V1.STOP,
  [S2018.MIGRATION_FAILED]: V1.ERROR,
  [S2018.MIGRATION_CANCELLED]: V1.RUNNING,
};

/**
 * What is written to a driver of November 2018. It has no stop but in a migration: a device that is stopped by itself is brought to
 * stop-and-copy, and nothing is read. A text says why there is no way.
 */
const writes2018: Readonly<Record<Place2018, Readonly<Record<Exclude<V1State, 6>, Way<State2018>>>>> = {
  [V1.RUNNING]: { 0: [4], 1: [1], 2: [4], 3: [2, 3], 4: [6] },
  [V1.PRE_COPY]: { 0: [4, 5], 1: [9, 1], 2: [4], 3: [], 4: NOT_V1 },
  [V1.STOP_COPY]: { 0: [5], 1: [9, 1], 2: [], 3: NOT_V1, 4: NOT_V1 },
  [V1.RESUMING]: { 0: [7], 1: [7, 1], 2: NOT_V1, 3: NOT_V1, 4: [] },
  [V1.STOP]: { 0: [], 1: [1], 2: NEVER_RUN, 3: [1, 2, 3], 4: [6] },
  UNREAD: { 0: [], 1: [9, 1], 2: [], 3: [9, 1, 2, 3], 4: [5, 0, 6] },
  SAVED: { 0: [], 1: [1], 2: HAS_RUN, 3: [1, 2, 3], 4: [0, 6] },
  LOADED: { 0: [], 1: [1], 2: NEVER_RUN, 3: [1, 2, 3], 4: NEVER_RUN },
};

class Driver2018 implements DraftDriver {
  readonly #registers: DraftAccess<'draft-2018'>;

  constructor(device: DraftDevice) {
    this.#registers = new DraftAccess(device, 'draft-2018');
  }

  state(_expected: V1State, my: FromDraftState): V1State {
    const found = Number(this.#registers.read('device_state'));
    if (found !== S2018.MIGRATION_STOPNCOPY) my.unread = 0;
    const state = my.unread === 1 ? V1.STOP : meaning2018[found as State2018];
    if (state !== undefined) return state;
    throw unknownState('draft-2018', found);
  }

  #place(from: V1State, my: FromDraftState): Place2018 {
    if (from !== V1.STOP) return from as Exclude<V1State, 6>;
    if (my.unread === 1) return 'UNREAD';
    const found = Number(this.#registers.read('device_state'));
    if (found === S2018.MIGRATION_SAVE_COMPLETED) return 'SAVED';
    return found === S2018.MIGRATION_RESUME_COMPLETED ? 'LOADED' : V1.STOP;
  }

  bring(from: V1State, to: Exclude<V1State, 6>, my: FromDraftState): void {
    const way = writes2018[this.#place(from, my)][to];
    for (const state of wayOr(way)) this.#registers.write('device_state', state);
    my.unread = to === V1.STOP && from === V1.RUNNING ? 1 : 0;
  }

  /** All three kinds: each of them has to be sent. */
  pending(): number {
    const registers = this.#registers;
    const kinds = ['pending_precopy_only', 'pending_compatible', 'pending_postcopy_only'] as const;
    const sum = kinds.reduce((total, kind) => total + registers.estimate(kind), 0);
    return Math.min(sum, Number.MAX_SAFE_INTEGER);
  }

  buffer(): { offset: number; size: number } {
    return { offset: this.#registers.count('data_offset'), size: this.#registers.count('data_size') };
  }

  /** The second of the two writes counts, so the first is not repeated with it. */
  load(offset: number, size: number, my: FromDraftState): void {
    if (my.offset_written === 0) this.#registers.write('data_offset', offset);
    my.offset_written = 1;
    try {
      this.#registers.write('data_size', size);
    } catch (error) {
      if (!isNotReady(error)) my.offset_written = 0;
      throw error;
    }
    my.offset_written = 0;
  }
}

/** What is written to a driver of February 2019. */
const writes2019: Readonly<Record<Exclude<V1State, 6>, Readonly<Record<Exclude<V1State, 6>, Way<State2019>>>>> = {
  [V1.RUNNING]: { 0: [2, 0], 1: [1], 2: [2], 3: [3], 4: [0] },
  [V1.PRE_COPY]: { 0: [2, 0], 1: [1], 2: [2], 3: [], 4: NOT_V1 },
  [V1.STOP_COPY]: { 0: [0], 1: [1], 2: [], 3: NOT_V1, 4: NOT_V1 },
  [V1.RESUMING]: { 0: NEVER_RUN, 1: [1], 2: NOT_V1, 3: NOT_V1, 4: [] },
  [V1.STOP]: { 0: [], 1: [1], 2: [2], 3: [1, 3], 4: [0] },
};

class Driver2019 implements DraftDriver {
  readonly #device: DraftDevice;
  readonly #registers: DraftAccess<'draft-2019'>;

  constructor(device: DraftDevice) {
    this.#device = device;
    this.#registers = new DraftAccess(device, 'draft-2019');
  }

  /** 0 is a stop or resuming: whoever has written it knows which. */
  state(expected: V1State): V1State {
    const found = Number(this.#registers.read('device_state'));
    switch (found) {
      case S2019.RUNNING:
        return V1.RUNNING;
      case S2019.STOP_COPY:
        return V1.STOP_COPY;
      case S2019.PRE_COPY:
        return V1.PRE_COPY;
      case S2019.STOPPED_OR_RESUMING:
        return expected === V1.RESUMING ? V1.RESUMING : V1.STOP;
      default:
        throw unknownState('draft-2019', found);
    }
  }

  bring(from: V1State, to: Exclude<V1State, 6>): void {
    const way = writes2019[from as Exclude<V1State, 6>][to];
    for (const state of wayOr(way)) this.#registers.write('device_state', state);
  }

  pending(_state: V1State, my: FromDraftState): number {
    my.pending = this.#registers.estimate('pending_bytes');
    return my.pending;
  }

  /** As the published VMM takes it: what is pending, as far as the data section goes. */
  buffer(my: FromDraftState): { offset: number; size: number } {
    const offset = this.#registers.count('data_offset');
    const { dataSection } = this.#device;
    const size = Math.max(0, Math.min(my.pending, dataSection.offset + dataSection.size - offset));
    return { offset, size };
  }

  load(offset: number, size: number): void {
    this.#registers.write('data_offset', offset);
    this.#registers.write('data_size', size);
  }
}

function unknownState(draft: Draft, value: number): ShimError {
  return new ShimError('ERR_STATE_UNKNOWN', `device_state: the ${draft} driver shows ${draftStateName(draft, value)}`, {
    errno: 'EIO',
  });
}

function wayOr<S>(way: Way<S>): readonly S[] {
  if (typeof way !== 'string') return way;
  throw new ShimError('ERR_TRANSITION', `device_state: the driver of a draft: ${way}`, { errno: 'EINVAL' });
}
