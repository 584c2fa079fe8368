import { VFIO_DEVICE_RESET } from '../abi/vfio-ioctl.ts';
import {
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_MIGRATION,
  vfio_device_feature_mig_data_size,
  vfio_device_feature_mig_state,
  vfio_device_feature_migration,
} from '../abi/vfio-v2.ts';
import { hasErrno, ShimError } from '../error.ts';
import { OwnedFd } from '../sys/fd.ts';
import { ioctlValue } from '../sys/ioctl.ts';
import type { V2DataSession, V2Device } from '../v2/device.ts';
import { isSaving, isV2State, V2, v2StateName, type V2State } from '../v2/states.ts';
import { KernelDataFd, type DataFdMemory } from './data-fd.ts';
import { deviceError } from './errors.ts';
import { getFeature, setFeature } from './feature.ts';
import type { DeviceHandle } from './handle.ts';
import { KERNEL_LIVE_SIZE, kernel_live, KERNEL_STATE_SIZE, kernel_state } from './session-state.ts';
import { noStore, type SessionStore } from './session-store.ts';

/** What a device was asked and how it answered, for a transcript. */
export interface KernelEvents {
  /** One call on the device or its data fd: a name, and the result or errno. */
  asked?(what: string, value: number | string): void;
  /** The driver is seen, or was brought, in this state. */
  state?(state: V2State): void;
}

export interface KernelV2Options {
  readonly store?: SessionStore;
  /** `KERNEL_STATE_SIZE` bytes: what a successor goes on from. */
  readonly state?: Uint8Array;
  /** `KERNEL_LIVE_SIZE` bytes of shared memory: what is under way. */
  readonly live?: Uint8Array;
  readonly events?: KernelEvents;
}

/** The `VFIO_MIGRATION_*` flags of a device, 0 where its driver does not speak v2 (`ENOTTY`). */
export function migrationFlagsOf(device: DeviceHandle): number {
  try {
    const bytes = getFeature(device, 'MIGRATION', VFIO_DEVICE_FEATURE_MIGRATION, vfio_device_feature_migration.size);
    return Number(vfio_device_feature_migration.decode(bytes).flags & 0xffff_ffffn);
  } catch (error) {
    if (hasErrno(error, 'ENOTTY') || hasErrno(error, 'EINVAL')) return 0;
    throw error;
  }
}

/** A device of the kernel whose driver speaks v2. It is asked for its state each time: resets happen behind our back. */
export class KernelV2Device implements V2Device {
  readonly migrationFlags: number;
  readonly #device: DeviceHandle;
  readonly #store: SessionStore;
  readonly #memory: DataFdMemory;
  readonly #events: KernelEvents;
  #session: KernelDataFd | undefined;
  /** There may be a data fd in the store: this process has put it there, or one before it. */
  #kept = true;

  constructor(device: DeviceHandle, migrationFlags: number, options: KernelV2Options = {}) {
    this.#device = device;
    this.migrationFlags = migrationFlags;
    this.#store = options.store ?? noStore;
    this.#events = options.events ?? {};
    this.#memory = {
      my: kernel_state.view(options.state ?? new Uint8Array(KERNEL_STATE_SIZE)),
      live: kernel_live.view(options.live ?? new Uint8Array(KERNEL_LIVE_SIZE)),
    };
  }

  getState(): V2State {
    const bytes = getFeature(
      this.#device,
      'MIG_DEVICE_STATE',
      VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
      vfio_device_feature_mig_state.size,
    );
    const state = vfio_device_feature_mig_state.decode(bytes).device_state;
    if (!isV2State(state)) {
      throw new ShimError('ERR_STATE_UNKNOWN', `MIG_DEVICE_STATE: the driver shows ${state}`, { errno: 'EIO' });
    }
    this.#events.asked?.('GET MIG_DEVICE_STATE', v2StateName(state));
    this.#events.state?.(state);
    if (!hasSession(state) && this.#kept) this.#endSession();
    return state;
  }

  setState(target: V2State): V2DataSession | undefined {
    const { live } = this.#memory;
    live.changing = 1;
    try {
      return this.#setState(target);
    } finally {
      live.changing = 0;
    }
  }

  #setState(target: V2State): V2DataSession | undefined {
    const data = vfio_device_feature_mig_state.encode({ device_state: target, data_fd: -1 });
    let fd: number;
    try {
      const answer = setFeature(this.#device, 'MIG_DEVICE_STATE', VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, data);
      fd = vfio_device_feature_mig_state.decode(answer).data_fd;
    } catch (error) {
      this.#events.asked?.(
        `SET MIG_DEVICE_STATE ${v2StateName(target)}`,
        error instanceof ShimError ? (error.errno ?? 'EIO') : 'EIO',
      );
      throw deviceError('MIG_DEVICE_STATE', error);
    }
    this.#events.asked?.(`SET MIG_DEVICE_STATE ${v2StateName(target)}`, fd < 0 ? -1 : 'data_fd');
    this.#events.state?.(target);
    if (fd < 0) {
      if (!hasSession(target)) this.#endSession();
      return undefined;
    }
    const { my } = this.#memory;
    this.#endSession();
    const owned = new OwnedFd(fd);
    this.#kept = true;
    this.#store.put(my.session + 1, owned);
    my.session += 1;
    this.#session = this.#dataFd(owned);
    this.#session.begin();
    return this.#session;
  }

  openSession(): V2DataSession | undefined {
    this.#session ??= this.#adopt();
    return this.#session;
  }

  stopCopyLength(): number {
    try {
      const { size } = vfio_device_feature_mig_data_size;
      const bytes = getFeature(this.#device, 'MIG_DATA_SIZE', VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, size);
      const { stop_copy_length } = vfio_device_feature_mig_data_size.decode(bytes);
      const length = Math.min(Number(stop_copy_length), Number.MAX_SAFE_INTEGER);
      this.#events.asked?.('GET MIG_DATA_SIZE', length);
      return length;
    } catch (error) {
      throw deviceError('MIG_DATA_SIZE', error);
    }
  }

  reset(): void {
    try {
      ioctlValue(this.#device.number, 'VFIO_DEVICE_RESET', VFIO_DEVICE_RESET);
    } catch (error) {
      this.#events.asked?.('VFIO_DEVICE_RESET', error instanceof ShimError ? (error.errno ?? 'EIO') : 'EIO');
      throw deviceError('VFIO_DEVICE_RESET', error);
    }
    this.#events.asked?.('VFIO_DEVICE_RESET', 0);
    this.#endSession();
  }

  /**
   * For a process that takes over: a session whose data fd was lost, because its predecessor was killed before it could be
   * kept, is given up. Nothing of it was seen by anybody; the call that asked for it is repeated and begins another. A session
   * that was not ours to begin (a VMM that speaks v2 itself) is none of that.
   */
  abandonLostSession(): void {
    if (this.#memory.live.changing === 0) return;
    this.#memory.live.changing = 0;
    const state = this.getState();
    if (!hasSession(state) || this.openSession() !== undefined) return;
    try {
      this.setState(state === V2.STOP_COPY ? V2.STOP : V2.RUNNING);
    } catch {
      this.reset(); // RESUMING without data may refuse to be left
    }
  }

  /** The session that another process has begun, and whose data fd is kept. */
  #adopt(): KernelDataFd | undefined {
    const { my } = this.#memory;
    const kept = this.#store.take();
    if (kept === undefined) return undefined;
    const { session, fd } = kept;
    const begun = session === my.session + 1; // by a call that was cut off, and is repeated
    if (session !== my.session && !begun) {
      fd.close();
      return undefined;
    }
    const state = this.getState();
    if (!hasSession(state)) {
      fd.close();
      return undefined;
    }
    my.session = session;
    const dataFd = this.#dataFd(fd);
    if (begun) dataFd.begin();
    else dataFd.adopt(state === V2.RESUMING);
    return dataFd;
  }

  #dataFd(fd: OwnedFd): KernelDataFd {
    return new KernelDataFd(fd, this.#memory, (call, bytes) => this.#events.asked?.(call, bytes));
  }

  #endSession(): void {
    this.#session?.close();
    this.#session = undefined;
    this.#store.clear();
    this.#kept = false;
  }
}

function hasSession(state: V2State): boolean {
  return isSaving(state) || state === V2.RESUMING;
}
