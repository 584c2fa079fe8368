import { VFIO_MIGRATION_PRE_COPY } from '../abi/vfio-v2.ts';
import { errnoOf, hasErrno, isNotReady, ShimError } from '../error.ts';
import { checkedBytes } from '../checked.ts';
import type { V1Device } from '../v1/device.ts';
import { DATA_OFFSET, V1Region, type V1Registers } from '../v1/region.ts';
import { isV1Transition, V1, v1StateName, type V1State } from '../v1/states.ts';
import { writeData } from '../v2/data-fd.ts';
import type { PrecopyInfo, V2DataSession, V2Device } from '../v2/device.ts';
import { isPreCopy, isSaving, isV2State, V2, v2StateName, type V2State } from '../v2/states.ts';
import type { Warn } from './warn.ts';
import { refuseAfterFailedWrite, refuseDataAfterLoss, refuseStateAfterLoss } from './loss.ts';
import { PRESENT_V1_STATE_SIZE, present_v1_state, type PresentV1State } from './present-v1-state.ts';
import { Session, sessionOf } from './session.ts';
import { Staging } from './staging.ts';
import { requestedAs, shownAs } from './state-map.ts';

/** Options of presentV1(). */
export interface PresentV1Options {
  /** The memory of the data section, a multiple of 4096 bytes; the bridge stages data nowhere else. Default 16 MiB. */
  readonly dataSection?: Uint8Array;
  /**
   * The most bytes that one buffer shows, at most the data section. Default 2 MiB; in stop-and-copy, when the guest waits and each buffer
   * costs three calls, twice as much as long as the driver fills it, up to 16 MiB or half the data section.
   */
  readonly bufferSize?: number;
  /** What the user sees when the device is in ERROR: a failed call and a device that was reset, or device_state 6. */
  readonly onError?: 'reset' | 'report';
  /**
   * While there are initial bytes left, which a user should have before the device is stopped, pending_bytes in pre-copy is at least so
   * much: old users stop their guest by it alone. Bytes. Default 0.
   */
  readonly holdPrecopy?: number;
  /** Adds what stop-and-copy will cost (`MIG_DATA_SIZE`) to pending_bytes in pre-copy. */
  readonly pendingIncludesStopCopy?: boolean;
  /** Default: nobody is told. */
  readonly warn?: Warn;
  /**
   * `PRESENT_V1_STATE_SIZE` bytes: everything the bridge remembers besides the data section. They are 0 at first; an object that is given a
   * former one's goes on from there.
   */
  readonly state?: Uint8Array;
}

/** Sums of such numbers of bytes are still exact. */
const LARGEST_COUNT = 2 ** 51;

/**
 * Shows a v2 device as a v1 device: an old VMM drives a new driver.
 *
 * Nothing that was read from the data fd is lost: bytes are staged in the data section and stay there until the user
 * acknowledges them with a read of pending_bytes, across state writes too. Nothing is buffered beyond it. If the section has room for two
 * buffers, they take turns: readAhead() reads the next one while the user takes the first.
 */
export function presentV1(device: V2Device, options: PresentV1Options = {}): V1Device {
  const dataSection = options.dataSection ?? new Uint8Array(16 * 1024 * 1024);
  if (dataSection.length === 0 || dataSection.length % 4096 !== 0) {
    throw new ShimError('ERR_ARGUMENT', `data section: ${dataSection.length} bytes is not a multiple of 4096`);
  }
  const { bufferSize } = options;
  if (bufferSize !== undefined && (!Number.isSafeInteger(bufferSize) || bufferSize <= 0)) {
    throw new ShimError('ERR_ARGUMENT', `bufferSize: ${bufferSize} is no number of bytes`);
  }
  return new V1Region(new PresentedV1(device, dataSection, options), dataSection);
}

class PresentedV1 implements V1Registers {
  readonly #device: V2Device;
  readonly #section: Uint8Array;
  readonly #options: PresentV1Options;
  readonly #my: PresentV1State;
  readonly #staging: Staging;

  constructor(device: V2Device, section: Uint8Array, options: PresentV1Options) {
    this.#device = device;
    this.#section = section;
    this.#options = options;
    this.#my = present_v1_state.view(options.state ?? new Uint8Array(PRESENT_V1_STATE_SIZE));
    this.#staging = new Staging(section, options.bufferSize, this.#my);
  }

  readDeviceState(): number {
    return this.#shown(this.#sync());
  }

  writeDeviceState(value: number): void {
    const now = this.#sync();
    const from = this.#shown(now);
    if (!isV1Transition(from, value)) throw refused(from, value);
    refuseStateAfterLoss(this.#my, value);
    if (value !== from) refuseAfterFailedWrite(this.#my.refused_errno);

    const virtual = value === V1.PRE_COPY && (this.#device.migrationFlags & VFIO_MIGRATION_PRE_COPY) === 0;
    const target = virtual ? V2.RUNNING : requestedAs[value];
    if (target !== now) this.#request(now, target);
    else if (from === value) return; // the session of a state that is asked for again goes on
    this.#my.virtual_pre_copy = virtual ? 1 : 0;
    this.#enter(target);
  }

  readPendingBytes(): number {
    const state = this.#sync();
    refuseDataAfterLoss(this.#my);
    const my = this.#my;
    if (my.shown === 1) this.#staging.acknowledge();
    if (my.virtual_pre_copy === 1) return this.#stopCopyCost();
    // what stop-and-copy will cost contains what pre-copy has left (linux/vfio.h: vfio_device_feature_mig_data_size)
    if (isPreCopy(state)) return my.staged + Math.max(this.#preCopyBytes(), this.#stopCopyCost());
    if (state !== V2.STOP_COPY) return 0;
    this.#stage(state);
    return my.ended === 1 ? my.staged : my.staged + Math.max(0, my.promised - my.read_total);
  }

  readDataOffset(): number {
    const state = this.#sync();
    refuseDataAfterLoss(this.#my);
    if (isSaving(state)) {
      this.#stage(state);
      const my = this.#my;
      my.shown = my.staged > 0 ? 1 : 0;
      if (my.shown === 1) my.moved = 1;
      return DATA_OFFSET + this.#staging.offset;
    }
    return DATA_OFFSET;
  }

  /** In stop-and-copy, has the driver give the next buffer while the user takes the one that was shown. */
  readAhead(): void {
    if (this.#my.shown === 1 && this.#state() === V2.STOP_COPY) this.#staging.fillAhead(() => this.#session());
  }

  readDataSize(): number {
    this.#sync();
    refuseDataAfterLoss(this.#my);
    return this.#my.staged;
  }

  writeDataSize(size: number): void {
    const state = this.#sync();
    refuseDataAfterLoss(this.#my);
    if (state !== V2.RESUMING) {
      throw new ShimError('ERR_ACCESS', `write of data_size: the device is in ${v2StateName(state)}, not RESUMING`, {
        errno: 'EINVAL',
      });
    }
    const session = this.#session();
    const my = this.#my;
    refuseAfterFailedWrite(my.refused_errno);
    try {
      while (my.pushed < size) {
        my.pushed += writeData(session, this.#section.subarray(my.pushed, size));
        my.moved = 1;
      }
    } catch (error) {
      if (!isNotReady(error)) {
        my.refused_errno = errnoOf(error);
        this.#recover();
      }
      throw error;
    }
    my.pushed = 0;
  }

  /**
   * A session of which something has gone to its user, or come from there, is lost with the reset: a VMM resets its devices when
   * the guest reboots, and its migration knows nothing of it.
   */
  reset(): void {
    const my = this.#my;
    this.#device.reset();
    if (my.moved === 1) this.#lose(V2.RUNNING, 0);
    else if (my.told === 1) my.lost = Session.NONE;
    this.#forgetSession();
    my.virtual_pre_copy = 0;
    this.#letRun();
  }

  /** A reset leaves a device RUNNING. A driver that keeps its state over one is asked for it (hisi_acc_vf_pci_aer_reset_done, 6.12). */
  #letRun(): void {
    const state = this.#state();
    if (state === V2.RUNNING) return;
    try {
      this.#device.setState(V2.RUNNING);
    } catch (error) {
      if (isNotReady(error)) throw error;
      const why = error instanceof Error ? error.message : String(error);
      this.#options.warn?.(`after a reset the device is in ${v2StateName(state)} and does not run: ${why}`);
    }
  }

  /** The device's state. Throws `EIO` for one that is none. */
  #state(): V2State {
    const state: number = this.#device.getState();
    if (isV2State(state)) return state;
    throw new ShimError('ERR_STATE_UNKNOWN', `v2 driver: shows ${v2StateName(state)}`, { errno: 'EIO' });
  }

  /** Asks the device for its state, and deals with a reset or a failure behind the user's back. */
  #sync(): V2State {
    let state = this.#state();
    if (state === V2.ERROR && this.#recover()) state = this.#state();
    const my = this.#my;
    if (my.session === Session.NONE) my.session = sessionOf(state); // begun by a former owner
    else if (my.session !== sessionOf(state)) {
      this.#lose(state, my.deferred_errno);
      this.#forgetSession();
    }
    if (state !== V2.ERROR) my.error_told = 0;
    if (state !== V2.RUNNING && state !== V2.RUNNING_P2P) my.virtual_pre_copy = 0;
    return state;
  }

  /** Notes that a session has ended of which the user does not know: an error is to tell. */
  #lose(state: V2State, errno: number): void {
    const my = this.#my;
    const told = my.session === Session.SAVING ? 'saving' : 'resuming';
    this.#options.warn?.(`the ${told} session has ended: the device is in ${v2StateName(state)}`);
    my.lost = my.session;
    my.lost_errno = errno;
    my.told = 0;
  }

  /** device_state as the user sees it. */
  #shown(state: V2State): V1State {
    return this.#my.virtual_pre_copy === 1 ? V1.PRE_COPY : shownAs[state];
  }

  #request(now: V2State, target: V2State): void {
    try {
      this.#device.setState(target);
    } catch (error) {
      if (!isNotReady(error) && !this.#recover()) this.#goBack(now);
      this.#settle();
      throw error;
    }
  }

  /**
   * A failed write of device_state leaves the state before, or ERROR; a v2 device may have stopped on any hop, also in a P2P
   * state, which v1 cannot show. Sessions do not come back: if one has ended, the device runs or is stopped as it was before.
   * If one has begun, the user finds the device in it.
   */
  #goBack(before: V2State): void {
    const state = this.#state();
    if (state === V2.ERROR) return;
    const rest = isPreCopy(before) ? V2.RUNNING : V2.STOP;
    const begun = sessionOf(state) !== Session.NONE && sessionOf(state) !== sessionOf(before);
    const goal = sessionOf(state) === sessionOf(before) ? before : rest;
    if (begun || state === goal) return;
    try {
      this.#device.setState(goal);
    } catch (error) {
      this.#recover();
      const why = error instanceof Error ? error.message : String(error);
      this.#options.warn?.(`the device is left in ${v2StateName(state)}: ${why}`);
    }
  }

  /** A transition has failed, which the user is told now: a session that ended by it is not "lost". */
  #settle(): void {
    if (sessionOf(this.#state()) !== this.#my.session) this.#forgetSession();
  }

  /** Resets a device that is in ERROR, if that is what the user is to see. The operator is told either way. */
  #recover(): boolean {
    if (this.#state() !== V2.ERROR) return false;
    const my = this.#my;
    my.virtual_pre_copy = 0;
    const resets = (this.#options.onError ?? 'reset') === 'reset';
    if (resets) {
      this.#options.warn?.('the device is in ERROR and is reset');
      this.#device.reset();
    } else if (my.error_told === 0) {
      this.#options.warn?.('the device is in ERROR');
      my.error_told = 1;
    }
    return resets;
  }

  /** Notes the session that a successful request has begun, continued or ended. */
  #enter(state: V2State): void {
    const kind = sessionOf(state);
    const my = this.#my;
    if (kind !== my.session) {
      this.#forgetSession();
      my.session = kind;
    }
    if (state === V2.STOP_COPY) my.promised = this.#promisedBytes();
    if (isPreCopy(state) && this.#holdPrecopy > 0) this.#askForReinit();
  }

  get #holdPrecopy(): number {
    return this.#options.holdPrecopy ?? 0;
  }

  /** A driver that is told so says when there are initial bytes anew. Others count them as dirty, and nothing is lost by that. */
  #askForReinit(): void {
    try {
      this.#device.precopyInfoV2?.(true);
    } catch (error) {
      if (!hasErrno(error, 'ENOTTY')) throw error;
    }
  }

  #forgetSession(): void {
    const my = this.#my;
    my.session = Session.NONE;
    my.staged = 0;
    my.ahead = 0;
    my.length = 0;
    my.read_total = 0;
    my.promised = 0;
    my.pushed = 0;
    my.deferred_errno = 0;
    my.shown = 0;
    my.ended = 0;
    my.refused_errno = 0;
    my.moved = 0;
  }

  /** Reads ahead, if the data section is empty. */
  #stage(state: V2State): void {
    try {
      this.#staging.fill(state, () => this.#session());
    } catch (error) {
      if (!isNotReady(error)) this.#recover();
      throw error;
    }
  }

  #session(): V2DataSession {
    const session = this.#device.openSession();
    if (session !== undefined) return session;
    throw new ShimError('ERR_SESSION_ENDED', 'migration data: the device has no data session', { errno: 'ENODEV' });
  }

  /**
   * What pre-copy has left. A driver that first has to end what it is doing (mlx5, for as long as a SAVE takes) keeps nobody waiting: until
   * it says, there may be as much as the whole state.
   */
  #preCopyBytes(): number {
    let info: PrecopyInfo;
    try {
      info = this.#session().precopyInfo();
    } catch (error) {
      if (!isNotReady(error)) throw error;
      return Math.max(1, this.#promisedBytes(), this.#holdPrecopy);
    }
    const initial = checkedBytes('v2 driver: initial_bytes', info.initialBytes);
    const left = initial + checkedBytes('v2 driver: dirty_bytes', info.dirtyBytes);
    return Math.min(initial > 0 ? Math.max(left, this.#holdPrecopy) : left, LARGEST_COUNT);
  }

  #stopCopyCost(): number {
    return this.#options.pendingIncludesStopCopy === true ? this.#promisedBytes() : 0;
  }

  #promisedBytes(): number {
    try {
      const bytes = checkedBytes('v2 driver: stop_copy_length', this.#device.stopCopyLength());
      if (bytes <= LARGEST_COUNT) return bytes; // more is an errno, of which xe's driver makes a size (xe_vfio_pci_get_data_size, Linux 7.1)
    } catch {
      // the driver does not say
    }
    return 0; // the end of the stream says it all the same
  }
}

function refused(from: V1State, value: number): ShimError {
  return new ShimError('ERR_TRANSITION', `device_state: ${v1StateName(from)} does not lead to ${v1StateName(value)}`, {
    errno: 'EINVAL',
  });
}
