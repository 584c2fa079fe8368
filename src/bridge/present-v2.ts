import { VFIO_MIGRATION_P2P, VFIO_MIGRATION_PRE_COPY, VFIO_MIGRATION_STOP_COPY } from '../abi/vfio-v2.ts';
import { hasErrno, isNotReady, ShimError } from '../error.ts';
import { checkedBytes } from '../checked.ts';
import type { V1Device } from '../v1/device.ts';
import { V1RegisterAccess } from '../v1/registers.ts';
import { V1, type V1State } from '../v1/states.ts';
import type { PrecopyInfo, V2DataSession, V2Device } from '../v2/device.ts';
import { statePath } from '../v2/fsm.ts';
import { isPreCopy, V2, v2StateName, type V2State } from '../v2/states.ts';
import { BufferReader } from './buffer-reader.ts';
import type { Warn } from './warn.ts';
import {
  headerMemory,
  liveMemory,
  OF_THE_DEVICE,
  PRESENT_V2_STATE_SIZE,
  present_v2_live,
  present_v2_state,
  type PresentV2Live,
  type PresentV2State,
} from './present-v2-state.ts';
import { PresentedSession, type SessionOwner } from './presented-session.ts';
import { Session, sessionOf } from './session.ts';
import { goalOf, meaningOf, placeOf, writesFor, type Shown, type V1Habits } from './state-map.ts';
import { TransactionWriter } from './transaction-writer.ts';

/** Options of presentV2(). */
export interface PresentV2Options {
  /** `raw`: bytes as they come. `framed`: v1 buffers keep their boundaries; both ends must be bridged. */
  readonly segmentation?: 'raw' | 'framed';
  /** Offers P2P, with a full stop standing in for the quiescent state. */
  readonly offerP2P?: boolean;
  /** What MIG_DATA_SIZE says before the device has ever been saved, in bytes. Default: the data section. */
  readonly stopCopyEstimate?: number;
  /** The driver knows no device_state 0 to 2: STOP is written as 3 and 2. Otherwise that is learnt when it refuses. */
  readonly stopBySaving?: boolean;
  /** The driver takes device_state 0 after 4, and loads by then. */
  readonly stopAfterLoad?: boolean;
  /** Default: nobody is told. */
  readonly warn?: Warn;
  /**
   * `PRESENT_V2_STATE_SIZE` bytes: everything the bridge remembers besides `carry`. They are 0 at first; an object that is given a
   * former one's goes on from there.
   */
  readonly state?: Uint8Array;
  /** Memory as large as the data section, for the rest of a buffer that is being read across a state change. */
  readonly carry?: Uint8Array;
  /**
   * `PRESENT_V2_LIVE_SIZE` bytes of memory that counts at once, for a driver that does not forget what it was asked when `state`
   * goes back to what it was before a call. Without it they are part of `state`.
   */
  readonly live?: Uint8Array;
}

/** What QEMU 10 reads at once, unless MIG_DATA_SIZE is smaller (hw/vfio/migration.c: VFIO_MIG_DEFAULT_DATA_BUFFER_SIZE). */
const FULL_READ = 1024 * 1024;

/** Shows a v1 device as a v2 device: a new VMM drives an old driver. */
export function presentV2(device: V1Device, options: PresentV2Options = {}): V2Device {
  const { regionSize, dataSection, mapped } = device;
  const fits = dataSection.offset + dataSection.size <= checkedBytes('v1 driver: regionSize', regionSize);
  checkedBytes('v1 driver: dataSection.offset', dataSection.offset);
  checkedBytes('v1 driver: dataSection.size', dataSection.size);
  if (!fits || (mapped !== undefined && mapped.length > dataSection.size)) {
    throw new ShimError(
      'ERR_DEVICE',
      `v1 driver: a data section of ${dataSection.size} bytes at ${dataSection.offset}, of which ${mapped?.length ?? 0} are mapped, in a region of ${regionSize}`,
      { errno: 'EIO' },
    );
  }
  if (options.stopCopyEstimate !== undefined) checkedBytes('stopCopyEstimate', options.stopCopyEstimate);
  return new PresentedV2(device, options);
}

class PresentedV2 implements V2Device, SessionOwner {
  readonly migrationFlags: number;
  readonly #device: V1Device;
  readonly #registers: V1RegisterAccess;
  readonly #options: PresentV2Options;
  readonly #my: PresentV2State;
  readonly #live: PresentV2Live;
  readonly #reader: BufferReader;
  readonly #writer: TransactionWriter;

  constructor(device: V1Device, options: PresentV2Options) {
    this.#device = device;
    this.#registers = new V1RegisterAccess(device);
    this.#options = options;
    const memory = options.state ?? new Uint8Array(PRESENT_V2_STATE_SIZE);
    this.#my = present_v2_state.view(memory);
    const framed = options.segmentation === 'framed';
    const live = present_v2_live.view(options.live ?? liveMemory(memory));
    this.#live = live;
    const parts = { device, registers: this.#registers, my: this.#my, live, framed };
    this.#reader = new BufferReader(parts, options.carry ?? new Uint8Array(0));
    this.#writer = new TransactionWriter(parts, headerMemory(memory));
    this.migrationFlags =
      VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY | (options.offerP2P === true ? VFIO_MIGRATION_P2P : 0);
  }

  getState(): V2State {
    return this.#sync(this.#registers.deviceState());
  }

  /** The v2 state that a device_state stands for. A session that has ended behind the user's back is ended here too. */
  #sync(v1: V1State): V2State {
    const my = this.#my;
    const state = meaningOf(v1, this.#shown());
    if (my.session !== Session.NONE && my.session !== sessionOf(state)) {
      this.#options.warn?.(`the data session has ended: the device is in ${v2StateName(state)}`);
      this.#endSession();
      if (v1 === V1.RUNNING) this.#acknowledgeLoss();
    }
    return state;
  }

  #shown(): Shown {
    return { stopped: this.#my.stopped === 1, p2p: this.#my.p2p === 1 };
  }

  #habits(): V1Habits {
    const { stopBySaving = false, stopAfterLoad = false } = this.#options;
    return { stopBySaving: stopBySaving || this.#my.stop_by_saving === 1, stopAfterLoad };
  }

  /**
   * Asks the device to run, which it does already. A v2 user learns from its data fd (`ENODEV`) that a session has ended by itself; a v1
   * device may go on telling its user, as presentV1 does, until it is asked to run.
   */
  #acknowledgeLoss(): void {
    try {
      this.#registers.setDeviceState(V1.RUNNING);
    } catch {
      // the one answer that was still owed
    }
  }

  setState(target: V2State): V2DataSession | undefined {
    const my = this.#my;
    const found = this.#registers.rawDeviceState();
    const v1 = this.#registers.stateOf(found);
    const from = this.#sync(v1);
    const session = my.session_id;
    const path = this.#way(v1, from, target);
    if (from === V2.RESUMING && target !== V2.RESUMING) this.#writer.finish();
    if (path.length === 0) this.#arrive(v1, target);
    let at = v1;
    for (const [n, write] of path.entries()) {
      const passes = write === V1.STOP ? V2.STOP : V2.RUNNING; // also with 3: a session begins where the user gets it
      const next = n === path.length - 1 ? target : passes;
      if (at === V1.PRE_COPY && write === V1.STOP_COPY && my.session === Session.SAVING) this.#reader.keepBuffer();
      try {
        this.#write(found, at, write);
      } catch (error) {
        if (n > 0 && at === V1.PRE_COPY && !isNotReady(error)) this.#runAgain(found);
        throw error;
      }
      this.#arrive(write, next);
      at = write;
    }
    return my.session_id === session ? undefined : this.openSession();
  }

  /** What has to be written. Throws, before anything is done, if the kernel's state machine or the driver has no way. */
  #way(v1: V1State, found: V2State, target: V2State): readonly Exclude<V1State, 6>[] {
    // a predecessor was killed once it had written 2 for PRE_COPY_P2P
    const from = found === V2.STOP_COPY && this.#my.pre_copy === 1 ? V2.PRE_COPY : found;
    statePath(this.migrationFlags, from, target);
    const habits = this.#habits();
    // a predecessor was killed once it had written 2 as a stop
    const unread = v1 === V1.STOP_COPY && this.#my.session === Session.NONE && habits.stopBySaving;
    const place = unread ? 'UNREAD' : placeOf(v1, this.#shown());
    const goal = goalOf[target];
    return place === undefined || goal === undefined ? [] : writesFor(place, goal, habits);
  }

  /** The driver is in a device_state that stands for this state. */
  #arrive(v1: V1State, state: V2State): void {
    const my = this.#my;
    my.p2p = state === V2.RUNNING_P2P || state === V2.PRE_COPY_P2P ? 1 : 0;
    const isStop = state === V2.STOP || state === V2.RUNNING_P2P;
    my.stopped = isStop && v1 !== V1.STOP ? 1 : 0;
    this.#enterSession(sessionOf(state));
    my.pre_copy = state === V2.PRE_COPY ? 1 : 0;
  }

  #enterSession(kind: number): void {
    const my = this.#my;
    if (kind === my.session) return;
    this.#endSession();
    if (kind === Session.NONE) return;
    my.session = kind;
    my.session_id += 1;
  }

  /** Writes device_state, keeping the reserved bits that were found. */
  #write(found: number, at: V1State, write: V1State): void {
    try {
      this.#registers.writeDeviceState(found, write);
    } catch (error) {
      if (isNotReady(error)) throw error;
      if (at === V1.STOP && write === V1.STOP_COPY) this.#learn(error);
      if (at === V1.RESUMING && this.#my.stopped === 1) this.#backToResuming();
      throw error;
    }
  }

  /** On a way from 1 by 3, 2 was refused: the user has not asked for pre-copy. */
  #runAgain(found: number): void {
    try {
      this.#registers.writeDeviceState(found, V1.RUNNING);
    } catch {
      // the user is told of the first failure, and finds where the device is
    }
  }

  /** A driver that takes no 0 to 2 is not asked again: a stop is written as 3 and 2 from now on. */
  #learn(error: unknown): void {
    // EFAULT is what the drivers of HiSilicon and NVIDIA say in place of EINVAL
    if (!hasErrno(error, 'EINVAL') && !hasErrno(error, 'EFAULT')) return;
    if (this.#registers.deviceState() !== V1.STOP) return;
    this.#my.stop_by_saving = 1;
    throw new ShimError(
      'ERR_TRANSITION',
      `device_state: this v1 driver refuses 0 to 2 (${error.errno}); from now on a stop is written as 3 and 2: let the device run, then ask again`,
      { errno: 'EINVAL', cause: error },
    );
  }

  /** The driver has refused what it was sent, though the user has been shown a stop: it is back in RESUMING and its session. */
  #backToResuming(): void {
    const my = this.#my;
    const state = this.#registers.deviceState(); // first: "not yet" here leaves all for the call's repetition
    my.stopped = 0;
    my.p2p = 0;
    if (state === V1.RESUMING) my.session = Session.RESUMING;
  }

  openSession(): V2DataSession | undefined {
    const { session, session_id } = this.#my;
    return session === Session.NONE ? undefined : new PresentedSession(this, session_id, session);
  }

  /**
   * While the device is being saved, what is left from here; before, what the last session had or the estimate, and enough for a
   * VMM to read in pieces of full size. It never fails: QEMU 10 takes 100 GiB if it does.
   */
  stopCopyLength(): number {
    const my = this.#my;
    const { size } = this.#device.dataSection;
    const state = this.getState();
    if (my.session === Session.SAVING) return this.#reader.left(state);
    const estimate = my.last_total > 0 ? my.last_total : (this.#options.stopCopyEstimate ?? size);
    return Math.max(estimate, Math.min(size, FULL_READ));
  }

  reset(): void {
    const had = this.#my.session !== Session.NONE;
    this.#device.reset();
    this.#endSession();
    this.#my.stopped = 0;
    this.#my.p2p = 0;
    if (had) this.#acknowledgeLoss();
  }

  #endSession(): void {
    const my = this.#my;
    if (my.session === Session.SAVING) {
      const total = my.session_read + this.#reader.knownLeft();
      if (total > 0) my.last_total = total;
    }
    if (my.session === Session.RESUMING && my.session_read > 0) my.last_total = my.session_read;
    const kept = OF_THE_DEVICE.map((field) => [field, my[field]] as const);
    // what was begun and not finished belongs to the session that ends
    const buffers = Math.max(my.buffers, this.#live.asked);
    const transactions = Math.max(my.transactions, this.#live.handing);
    for (const field of Object.keys(present_v2_state.fields)) my[field as keyof PresentV2State] = 0;
    Object.assign(my, Object.fromEntries(kept), { buffers, transactions });
    this.#reader.forget();
  }

  checkSession(id: number): V2State {
    const state = this.getState();
    if (this.#my.session !== Session.NONE && this.#my.session_id === id) return state;
    throw new ShimError('ERR_SESSION_ENDED', 'data fd: its session has ended', { errno: 'ENODEV' });
  }

  readData(state: V2State, into: Uint8Array): number {
    return this.#reader.read(state, into);
  }

  get isInPlace(): boolean {
    return this.#device.mapped !== undefined && this.#options.segmentation !== 'framed'; // a frame's header lies elsewhere
  }

  peekData(state: V2State, length: number): Uint8Array | undefined {
    return this.#reader.peek(state, length);
  }

  consumeData(length: number): void {
    this.#reader.consume(length);
  }

  readAhead(id: number): void {
    const { session, session_id } = this.#my;
    if (session === Session.SAVING && session_id === id) this.#reader.readAhead();
  }

  writeData(from: Uint8Array): number {
    return this.#writer.write(from);
  }

  room(length: number): Uint8Array | undefined {
    return this.#writer.room(length);
  }

  fillRoom(length: number): void {
    this.#writer.fill(length);
  }

  /** Looks at the state before the session, as the drivers in Linux 6.12 do. */
  precopyInfo(id: number): PrecopyInfo {
    const state = this.getState();
    if (!isPreCopy(state)) {
      throw new ShimError('ERR_ACCESS', `VFIO_MIG_GET_PRECOPY_INFO: the device is in ${v2StateName(state)}`, {
        errno: 'EINVAL',
      });
    }
    if (this.#my.session !== Session.NONE && this.#my.session_id === id) return this.#reader.precopyInfo();
    throw new ShimError('ERR_SESSION_ENDED', 'data fd: its session has ended', { errno: 'ENODEV' });
  }
}
