import {
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2,
  VFIO_DEVICE_FEATURE_MIGRATION,
  vfio_device_feature_mig_data_size,
  vfio_device_feature_mig_state,
  vfio_device_feature_migration,
} from '../../abi/vfio-v2.ts';
import { hasErrno, ShimError } from '../../error.ts';
import type { V2DataSession, V2Device } from '../../v2/device.ts';
import { hasSession, isV2State, type V2State } from '../../v2/states.ts';
import type { VfioPort } from '../port.ts';
import { deviceError } from './errors.ts';
import { getFeature, setFeature } from './features.ts';

/** The `VFIO_MIGRATION_*` flags of a device, 0 if its driver does not speak v2 (`ENOTTY`, or `EINVAL`). */
export function migrationFlagsOf(port: VfioPort): number {
  try {
    const bytes = getFeature(port, 'MIGRATION', VFIO_DEVICE_FEATURE_MIGRATION, vfio_device_feature_migration.size);
    return Number(vfio_device_feature_migration.decode(bytes).flags & 0xffff_ffffn);
  } catch (error) {
    if (hasErrno(error, 'ENOTTY') || hasErrno(error, 'EINVAL')) return 0;
    throw error;
  }
}

/** A device behind a port whose driver speaks v2. getState() asks it each time: others reset it too. */
export class PortV2Device implements V2Device {
  readonly migrationFlags: number;
  readonly #port: VfioPort;

  constructor(port: VfioPort, migrationFlags: number) {
    this.#port = port;
    this.migrationFlags = migrationFlags;
  }

  getState(): V2State {
    const bytes = getFeature(
      this.#port,
      'MIG_DEVICE_STATE',
      VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
      vfio_device_feature_mig_state.size,
    );
    const state = vfio_device_feature_mig_state.decode(bytes).device_state;
    if (!isV2State(state)) {
      throw new ShimError('ERR_STATE_UNKNOWN', `MIG_DEVICE_STATE: the driver shows ${state}`, { errno: 'EIO' });
    }
    if (!hasSession(state)) this.#port.sessions.end();
    return state;
  }

  setState(target: V2State): V2DataSession | undefined {
    return this.#port.sessions.change(() => this.#setState(target));
  }

  #setState(target: V2State): V2DataSession | undefined {
    const data = vfio_device_feature_mig_state.encode({ device_state: target, data_fd: -1 });
    let fd: number;
    try {
      const answer = setFeature(this.#port, 'MIG_DEVICE_STATE', VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, data);
      fd = vfio_device_feature_mig_state.decode(answer).data_fd;
    } catch (error) {
      throw deviceError('MIG_DEVICE_STATE', error);
    }
    const { sessions } = this.#port;
    if (fd >= 0) return sessions.begin(fd);
    if (!hasSession(target)) sessions.end();
    return undefined;
  }

  openSession(): V2DataSession | undefined {
    return this.#port.sessions.current(() => this.getState());
  }

  stopCopyLength(): number {
    try {
      const { size } = vfio_device_feature_mig_data_size;
      const bytes = getFeature(this.#port, 'MIG_DATA_SIZE', VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, size);
      const { stop_copy_length } = vfio_device_feature_mig_data_size.decode(bytes);
      return Math.min(Number(stop_copy_length), Number.MAX_SAFE_INTEGER);
    } catch (error) {
      throw deviceError('MIG_DATA_SIZE', error);
    }
  }

  readonly precopyInfoV2 = (wanted: boolean): void => {
    if (!wanted) return; // the kernel forgets it when the device is closed, and not before
    try {
      setFeature(this.#port, 'MIG_PRECOPY_INFOv2', VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2, new Uint8Array(0));
    } catch (error) {
      throw deviceError('MIG_PRECOPY_INFOv2', error);
    }
  };

  reset(): void {
    try {
      this.#port.reset();
    } catch (error) {
      throw deviceError('VFIO_DEVICE_RESET', error);
    }
    this.#port.sessions.end();
  }
}
