import { VFIO_MIGRATION_P2P, VFIO_MIGRATION_PRE_COPY, VFIO_MIGRATION_STOP_COPY } from '../abi/vfio-v2.ts';
import type { ErrnoName } from '../abi/errno.ts';
import { isNotReady } from '../error.ts';
import type { PrecopyInfo, V2DataSession, V2Device } from '../v2/device.ts';
import { statePath } from '../v2/fsm.ts';
import { isPreCopy, isSaving, V2, v2StateName, type V2State } from '../v2/states.ts';
import { storeOf, type ByteStore } from './byte-store.ts';
import type { Fault } from './fault.ts';
import { faultError, Faults } from './faults.ts';
import type { SimMemory } from './memory.ts';
import { File, mlx5_state, Session, type Mlx5State } from './mlx5-format.ts';
import { decodeImage } from './mlx5-image.ts';
import { layoutOf, type Mlx5Layout } from './mlx5-layout.ts';
import { Mlx5Parser } from './mlx5-parser.ts';
import { Mlx5Saver } from './mlx5-saver.ts';
import type { Mlx5Values } from './mlx5.ts';
import { simError, simNotYet } from './sim-error.ts';

/** Microseconds of `CLOCK_MONOTONIC`, which all processes share. */
const monotonic = (): number => Number(process.hrtime.bigint() / 1000n);

/** How much of an image is loaded at a time, in bytes. */
const PIECE = 1024 * 1024;

/**
 * A device with the driver of drivers/vfio/pci/mlx5/main.c, Linux 6.12 or 7.1: what saving and resuming is to its user
 * (mlx5vf_pci_step_device_state_locked), and when that has to wait.
 */
export class Mlx5Device implements V2Device {
  readonly migrationFlags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY;
  readonly precopyInfoV2: ((wanted: boolean) => void) | undefined;
  readonly #values: Mlx5Values;
  readonly #my: Mlx5State;
  readonly #faults: Faults;
  readonly #guest: ByteStore;
  readonly #kept: ByteStore;
  readonly #layout: Mlx5Layout;
  readonly #saver: Mlx5Saver;
  readonly #parser: Mlx5Parser;
  /** Bytes that one read or write of the data may move. */
  readonly #most: number;

  constructor(values: Mlx5Values, memory: SimMemory, clock: () => number = monotonic) {
    this.#values = values;
    this.#my = mlx5_state.view(memory.state);
    this.#faults = new Faults(values, this.#my, memory.state);
    this.#guest = memory.pieces?.bar ?? storeOf(memory.bar);
    this.#kept = memory.pieces?.kept ?? storeOf(memory.kept);
    this.#layout = layoutOf(values);
    const stores = { guest: this.#guest, kept: this.#kept };
    this.#saver = new Mlx5Saver(values, memory, this.#my, stores, this.#layout, clock);
    this.#parser = new Mlx5Parser(memory, this.#my, this.#kept, this.#layout, (length) => this.#load(length));
    this.#most = values.short > 0 ? values.short : Number.MAX_SAFE_INTEGER;
    // vfio_main.c of 7.1: vfio_ioctl_device_feature_migration_precopy_info_v2
    if (values.kernel !== '6.12') this.precopyInfoV2 = (wanted) => (this.#my.opted_in = wanted ? 1 : 0);
    if (this.#my.state_plus_one === 0) this.#state = V2.RUNNING;
  }

  /**
   * A reset that comes while somebody waits for the firmware, with the driver's lock, is done when he gives the lock back, and until then
   * whoever asks for the state waits too (mlx5vf_state_mutex_unlock, mlx5vf_pci_get_device_state).
   */
  getState(): V2State {
    if (this.#my.reset_deferred === 1) {
      this.#saver.settle(this.#now);
      const { due } = this.#saver;
      if (due !== undefined) throw simNotYet('an image is being saved, and the reset comes after it', due);
      this.#unlock();
    }
    return this.#now;
  }

  setState(target: V2State): V2DataSession | undefined {
    const my = this.#my;
    const { session_id } = my;
    try {
      for (const hop of statePath(this.migrationFlags, this.#now, target)) {
        this.#saver.settle(this.#now);
        this.#checkArc(hop);
        const fault = this.#faults.beforeEntry(v2StateName(hop));
        if (fault !== undefined) throw this.#fail(fault);
        this.#enter(hop);
      }
    } catch (error) {
      if (!isNotReady(error)) this.#unlock();
      throw error;
    }
    const begun = my.session_id === session_id ? undefined : this.openSession();
    this.#unlock();
    return begun;
  }

  openSession(): V2DataSession | undefined {
    const { session, session_id } = this.#my;
    return session === Session.NONE ? undefined : new Mlx5Session(this, session_id, session === Session.SAVING);
  }

  stopCopyLength(): number {
    this.#saver.settle(this.#now);
    return this.#saver.dataSize();
  }

  reset(): void {
    if (this.#my.waiting === 1) this.#my.reset_deferred = 1;
    else this.#reset();
  }

  get #now(): V2State {
    return (this.#my.state_plus_one - 1) as V2State;
  }

  set #state(state: V2State) {
    this.#my.state_plus_one = state + 1;
  }

  #reset(): void {
    const my = this.#my;
    this.#saver.end();
    my.session = Session.NONE;
    my.file_lost = 0;
    this.#state = V2.RUNNING;
  }

  /** Whoever had the driver's lock gives it back (main.c: mlx5vf_state_mutex_unlock). */
  #unlock(): void {
    const my = this.#my;
    my.waiting = 0;
    if (my.reset_deferred === 0) return;
    my.reset_deferred = 0;
    this.#reset();
  }

  /** What must be before an arc of the FSM is taken. */
  #checkArc(to: V2State): void {
    const my = this.#my;
    if (my.file_lost === 1) throw simError('EIO', `leaving ${v2StateName(this.#now)}: its file is gone`);
    if (!isPreCopy(this.#now)) return;
    const { due } = this.#saver;
    if (due !== undefined) this.#wait(due);
    if (to === V2.STOP_COPY && my.file === File.ERROR) throw simError('ENODEV', 'saving has failed');
    if (isSaving(to) || my.file !== File.ERROR) return;
    this.#saver.end();
    my.session = Session.NONE;
    my.file_lost = 1;
    throw simError('EIO', 'leaving pre-copy: saving has failed');
  }

  #enter(to: V2State): void {
    const my = this.#my;
    const from = this.#now;
    const kind = isSaving(to) ? Session.SAVING : to === V2.RESUMING ? Session.RESUMING : Session.NONE;
    if (kind !== my.session) {
      this.#saver.end();
      my.session = kind;
      if (kind !== Session.NONE) my.session_id += 1;
      if (kind === Session.SAVING) this.#saver.begin(isPreCopy(to));
      if (kind === Session.RESUMING) this.#parser.begin();
    } else if (isPreCopy(from) && to === V2.STOP_COPY) {
      this.#saver.beginStopCopy(my.file !== File.PRE_COPY_ERROR);
    }
    this.#state = to;
    this.#saver.settle(to);
  }

  #wait(due: number): never {
    this.#my.waiting = 1;
    throw simNotYet('an image is being saved', due);
  }

  #fail(fault: Fault): Error {
    if (fault.fatal) {
      this.#saver.end();
      this.#my.session = Session.NONE;
      this.#state = V2.ERROR;
    }
    return faultError(fault);
  }

  /** @internal */
  checkSession(id: number): void {
    const { session, session_id } = this.#my;
    if (session === Session.NONE || session_id !== id) throw simError('ENODEV', 'its session has ended');
  }

  /** @internal */
  read(into: Uint8Array): number {
    const fault = this.#faults.beforeData('read');
    if (fault !== undefined) throw this.#fail(fault);
    this.#saver.settle(this.#now);
    return this.#saver.read(into.subarray(0, this.#most), this.#now);
  }

  /** @internal Without O_NONBLOCK a read waits for an image, also in pre-copy (7.1); with it nobody does (mlx5vf_save_read). */
  nonblockingErrno(): ErrnoName {
    return isPreCopy(this.#now) && this.#my.file === File.PRE_COPY ? 'ENOMSG' : 'EAGAIN';
  }

  /** @internal */
  readableFrom(): number {
    return this.#saver.readableFrom();
  }

  /** @internal After an error the file takes no more, whatever the device has got (main.c: mlx5vf_mark_migf_error). */
  write(from: Uint8Array): number {
    const fault = this.#faults.beforeData('write');
    if (fault !== undefined) throw this.#fail(fault);
    const my = this.#my;
    if (my.file === File.ERROR) throw simError('ENODEV', 'the data fd: a write has failed');
    const piece = from.subarray(0, this.#most);
    try {
      this.#parser.write(piece);
    } catch (error) {
      my.file = File.ERROR;
      throw error;
    }
    return piece.length;
  }

  /** @internal The state is asked about first, then the file. */
  precopyInfo(id: number): PrecopyInfo {
    const state = this.#now;
    if (!isPreCopy(state)) {
      this.#unlock();
      throw simError('EINVAL', `no precopy info in ${v2StateName(state)}`);
    }
    try {
      this.checkSession(id);
      this.#saver.settle(state);
      const info = this.#saver.precopyInfo(state);
      this.#saver.settle(state);
      this.#unlock();
      return info;
    } catch (error) {
      if (isNotReady(error)) this.#my.waiting = 1;
      else this.#unlock();
      throw error;
    }
  }

  /** LOAD_VHCA_STATE of an image that has been written whole. */
  #load(length: number): void {
    const my = this.#my;
    my.loads += 1;
    if (this.#values.fwerr.some(({ command, nth }) => command === 'LOAD' && nth === my.loads)) {
      throw simError('EIO', `the firmware fails to load image ${my.loads}`);
    }
    const { incomingAt } = this.#layout;
    const image = decodeImage(this.#values, this.#kept, incomingAt, length);
    if ('wrong' in image) throw simError('EINVAL', `image ${my.loads}: ${image.wrong}`);
    let at = incomingAt + image.begin;
    const piece = new Uint8Array(Math.min(PIECE, length));
    for (const { offset, length: bytes } of image.extents) {
      for (let done = 0; done < bytes; done += piece.length) {
        const part = piece.subarray(0, Math.min(piece.length, bytes - done));
        this.#kept.read(at + done, part);
        this.#guest.write(offset + done, part);
      }
      at += bytes;
    }
  }
}

class Mlx5Session implements V2DataSession {
  readonly #device: Mlx5Device;
  readonly #id: number;
  readonly #isSaving: boolean;
  /** Of a file that is saved to alone: one that is resumed from has no poll (main.c: mlx5vf_resume_fops). */
  readonly readableFrom: (() => number) | undefined;

  constructor(device: Mlx5Device, id: number, isSavingSession: boolean) {
    this.#device = device;
    this.#id = id;
    this.#isSaving = isSavingSession;
    if (isSavingSession) this.readableFrom = () => device.readableFrom();
  }

  read(into: Uint8Array): number {
    if (!this.#isSaving) throw simError('EBADF', 'the data fd is not open for this');
    this.#device.checkSession(this.#id);
    return into.length === 0 ? 0 : this.#device.read(into);
  }

  readonly nonblockingErrno = (): ErrnoName => this.#device.nonblockingErrno();

  write(from: Uint8Array): number {
    if (this.#isSaving) throw simError('EBADF', 'the data fd is not open for this');
    this.#device.checkSession(this.#id);
    return from.length === 0 ? 0 : this.#device.write(from);
  }

  precopyInfo(): PrecopyInfo {
    if (!this.#isSaving) throw simError('ENOTTY', 'a resuming data fd has no precopy info');
    return this.#device.precopyInfo(this.#id);
  }

  close(): void {
    // the device's state stays, as with the kernel's data fds
  }
}
