import { VFIO_MIGRATION_P2P, VFIO_MIGRATION_PRE_COPY, VFIO_MIGRATION_STOP_COPY } from '../abi/vfio-v2.ts';
import { hasErrno, isNotReady, ShimError } from '../error.ts';
import type { V1Device } from '../v1/device.ts';
import { V1RegisterAccess } from '../v1/registers.ts';
import { V1, type V1State } from '../v1/states.ts';
import type { PrecopyInfo, V2DataSession, V2Device } from '../v2/device.ts';
import { statePath } from '../v2/fsm.ts';
import { isPreCopy, isSaving, V2, v2StateName, type V2State } from '../v2/states.ts';
import { BufferReader } from './buffer-reader.ts';
import { stateMemory, type BridgeEvents } from './options.ts';
import {
  headerMemory,
  liveMemory,
  PRESENT_V2_STATE_SIZE,
  present_v2_live,
  present_v2_state,
  type PresentV2Live,
  type PresentV2State,
} from './present-v2-state.ts';
import { PresentedSession, type SessionOwner } from './presented-session.ts';
import { Session, sessionOf } from './session.ts';
import { TransactionWriter } from './transaction-writer.ts';

export interface PresentV2Options {
  /** `raw`: bytes as they come. `framed`: v1 buffers keep their boundaries; both ends must be bridged. */
  readonly segmentation?: 'raw' | 'framed';
  /** Offers P2P, with a full stop standing in for the quiescent state. */
  readonly offerP2P?: boolean;
  /** What MIG_DATA_SIZE says before the device has ever shown how much it has, in bytes. Default: the data section. */
  readonly stopCopyEstimate?: number;
  readonly events?: BridgeEvents;
  /** `PRESENT_V2_STATE_SIZE` bytes: everything the bridge remembers besides `carry`. */
  readonly state?: Uint8Array;
  /** Memory as large as the data section, for the rest of a buffer that is being read across a state change. */
  readonly carry?: Uint8Array;
  /**
   * `PRESENT_V2_LIVE_SIZE` bytes of memory that counts at once, for a driver that does not forget what it was asked when `state`
   * goes back to what it was before a call. Without it they are part of `state`.
   */
  readonly live?: Uint8Array;
}

/** The device_state that stands for a v2 state; P2P states are shown over a full stop. */
const standsFor: Readonly<Record<V2State, V1State>> = {
  [V2.ERROR]: V1.ERROR,
  [V2.STOP]: V1.STOP,
  [V2.RUNNING]: V1.RUNNING,
  [V2.STOP_COPY]: V1.STOP_COPY,
  [V2.RESUMING]: V1.RESUMING,
  [V2.RUNNING_P2P]: V1.STOP,
  [V2.PRE_COPY]: V1.PRE_COPY,
  [V2.PRE_COPY_P2P]: V1.STOP_COPY,
};

/** Shows a v1 device as a v2 device: a new VMM drives an old driver. */
export function presentV2(device: V1Device, options: PresentV2Options = {}): V2Device {
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
    const memory = stateMemory(PRESENT_V2_STATE_SIZE, options.state);
    this.#my = present_v2_state.view(memory);
    const { events } = options;
    const framed = options.segmentation === 'framed';
    const live = present_v2_live.view(options.live ?? liveMemory(memory));
    this.#live = live;
    const parts = { device, registers: this.#registers, my: this.#my, live, framed, events };
    this.#reader = new BufferReader(parts, options.carry ?? new Uint8Array(0));
    this.#writer = new TransactionWriter(parts, headerMemory(memory));
    this.migrationFlags =
      VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY | (options.offerP2P === true ? VFIO_MIGRATION_P2P : 0);
  }

  getState(): V2State {
    const v1 = this.#registers.deviceState();
    const my = this.#my;
    const state = this.#meaning(v1);
    if (my.session !== Session.NONE && my.session !== sessionOf(state)) {
      this.#options.events?.warning?.(`the data session has ended: the device is in ${v2StateName(state)}`);
      this.#endSession();
      this.#options.events?.state?.(v1, state);
      if (v1 === V1.RUNNING) this.#acknowledgeLoss();
    }
    return state;
  }

  /**
   * A v2 user learns from its data fd (`ENODEV`) that a session has ended by itself. A v1 device may keep telling its user,
   * as presentV1 does, until it is asked to run, which it does already.
   */
  #acknowledgeLoss(): void {
    try {
      this.#registers.setDeviceState(V1.RUNNING);
    } catch {
      // the one answer that was still owed
    }
  }

  setState(target: V2State): V2DataSession | undefined {
    const session = this.#my.session_id;
    const path = statePath(this.migrationFlags, this.getState(), target);
    // a predecessor may have been killed once the driver was there
    if (path.length === 0) this.#enterSession(sessionOf(target));
    let at = this.getState();
    for (const hop of path) {
      this.#hop(at, hop);
      at = hop;
      this.#options.events?.state?.(this.#my.held === 1 ? V1.RESUMING : standsFor[hop], hop);
    }
    return this.#my.session_id === session ? undefined : this.openSession();
  }

  openSession(): V2DataSession | undefined {
    const { session, session_id } = this.#my;
    return session === Session.NONE ? undefined : new PresentedSession(this, session_id, session);
  }

  stopCopyLength(): number {
    const { largest_pending } = this.#my;
    return largest_pending > 0 ? largest_pending : (this.#options.stopCopyEstimate ?? this.#device.dataSection.size);
  }

  reset(): void {
    this.#device.reset();
    this.#endSession();
    this.#my.held = 0;
    this.#my.p2p = 0;
  }

  /** The v2 state that a device_state stands for, given what v1 cannot say. */
  #meaning(v1: V1State): V2State {
    const my = this.#my;
    switch (v1) {
      case V1.ERROR:
        return V2.ERROR;
      case V1.PRE_COPY:
        return V2.PRE_COPY;
      case V1.RUNNING:
        my.held = 0;
        my.p2p = 0;
        return V2.RUNNING;
      case V1.STOP:
        return my.p2p === 1 ? V2.RUNNING_P2P : V2.STOP;
      case V1.STOP_COPY:
        return my.p2p === 1 ? V2.PRE_COPY_P2P : V2.STOP_COPY;
      case V1.RESUMING:
        if (my.held === 0) return V2.RESUMING;
        return my.p2p === 1 ? V2.RUNNING_P2P : V2.STOP;
    }
  }

  #hop(from: V2State, to: V2State): void {
    if (from === V2.PRE_COPY_P2P && to === V2.PRE_COPY) {
      throw new ShimError('ERR_TRANSITION', 'transition PRE_COPY_P2P to PRE_COPY: v1 stop-and-copy has no way back', {
        errno: 'EINVAL',
      });
    }
    const my = this.#my;
    if (from === V2.RESUMING) this.#leaveResuming();
    else {
      if (isSaving(to) && my.session === Session.SAVING) this.#reader.keepBuffer();
      this.#write(to);
    }
    my.p2p = to === V2.RUNNING_P2P || to === V2.PRE_COPY_P2P ? 1 : 0;
    this.#enterSession(sessionOf(to));
  }

  #enterSession(kind: number): void {
    const my = this.#my;
    if (kind === my.session) return;
    this.#endSession();
    if (kind === Session.NONE) return;
    my.session = kind;
    my.session_id += 1;
  }

  /** Brings device_state to what stands for a state that is one hop away. */
  #write(to: V2State): void {
    const want = standsFor[to];
    const now = this.#registers.deviceState();
    if (now === want) {
      if (this.#my.held === 1 && to === V2.RESUMING) this.#releaseHeld();
      else return;
    } else if (this.#my.held === 1) {
      if (to === V2.STOP || to === V2.RUNNING_P2P) return; // still only shown as stopped
      this.#releaseHeld();
    }
    if (this.#registers.deviceState() === want) return;
    try {
      this.#registers.setDeviceState(want);
    } catch (error) {
      const refused = hasErrno(error, 'EINVAL') && this.#registers.deviceState() === V1.STOP;
      if (want !== V1.RESUMING || !refused) throw error;
      this.#registers.setDeviceState(V1.RUNNING); // a driver that accepts RESUMING from RUNNING only
      this.#registers.setDeviceState(V1.RESUMING);
    }
  }

  /** RESUMING to STOP: hands over what is left of the data, then 0, held back where the driver refuses it. */
  #leaveResuming(): void {
    this.#writer.finish();
    try {
      this.#registers.setDeviceState(V1.STOP);
    } catch (error) {
      if (!hasErrno(error, 'EINVAL') || this.#registers.deviceState() !== V1.RESUMING) throw error;
      this.#my.held = 1;
    }
  }

  /** The 4 to 1 that a held-back stop still owes; a failure puts the user back into RESUMING and its session. */
  #releaseHeld(): void {
    const my = this.#my;
    try {
      this.#registers.setDeviceState(V1.RUNNING);
    } catch (error) {
      if (!isNotReady(error)) {
        const state = this.#registers.deviceState(); // first: "not yet" here leaves the stop owed, for the call's repetition
        my.held = 0;
        my.p2p = 0;
        if (state === V1.RESUMING) my.session = Session.RESUMING;
      }
      throw error;
    }
    my.held = 0;
  }

  #endSession(): void {
    const my = this.#my;
    const { session_id, largest_pending, held, p2p } = my;
    // what was begun and not finished belongs to the session that ends
    const buffers = Math.max(my.buffers, this.#live.asked);
    const transactions = Math.max(my.transactions, this.#live.handing);
    for (const field of Object.keys(present_v2_state.fields)) my[field as keyof PresentV2State] = 0;
    Object.assign(my, { session_id, largest_pending, held, p2p, buffers, transactions });
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

  readAhead(): void {
    this.#reader.readAhead();
  }

  shownData(state: V2State, length: number): Uint8Array | undefined {
    return this.#reader.shown(state, length);
  }

  writeData(from: Uint8Array): number {
    return this.#writer.write(from);
  }

  room(length: number): Uint8Array | undefined {
    return this.#writer.room(length);
  }

  precopyInfo(id: number): PrecopyInfo {
    const state = this.getState();
    if (!isPreCopy(state)) {
      throw new ShimError('ERR_ACCESS', `VFIO_MIG_GET_PRECOPY_INFO: the device is in ${v2StateName(state)}`, {
        errno: 'EINVAL',
      });
    }
    this.checkSession(id);
    return this.#reader.precopyInfo();
  }
}
