import {
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MASK,
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2,
  VFIO_DEVICE_FEATURE_MIGRATION,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  VFIO_MIGRATION_PRE_COPY,
  vfio_device_feature,
  vfio_device_feature_dma_logging_control,
  vfio_device_feature_dma_logging_report,
  vfio_device_feature_mig_data_size,
  vfio_device_feature_mig_state,
  vfio_device_feature_migration,
} from '../../abi/vfio-v2.ts';
import { isNotReady, type ShimError } from '../../error.ts';
import type { V2Device } from '../../v2/device.ts';
import { isV2State, V2 } from '../../v2/states.ts';
import type { Argument, PointingArgument } from '../argument.ts';
import { reportDirty, startLogging } from './dma-logging.ts';
import type { FeatureLog } from './feature-log.ts';
import { refuse } from './refuse.ts';

const HEADER = vfio_device_feature.size;
const BOTH = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET;

const MIGRATION_FEATURES: ReadonlySet<number> = new Set([
  VFIO_DEVICE_FEATURE_MIGRATION,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
  VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2,
]);

/** True for a `VFIO_DEVICE_FEATURE` that deviceFeature() answers; the others of a real device are its driver's. */
export function isMigrationFeature(argument: Argument): boolean {
  const { flags } = vfio_device_feature.decode(argument.read(HEADER));
  return MIGRATION_FEATURES.has(flags & VFIO_DEVICE_FEATURE_MASK);
}

const LOG_FEATURES = new Set([
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
]);

/** True for what is asked of a device's log of DMA, by a PROBE too. */
export function isLogFeature(argument: Argument): boolean {
  const { flags } = vfio_device_feature.decode(argument.read(HEADER));
  return LOG_FEATURES.has(flags & VFIO_DEVICE_FEATURE_MASK);
}

/**
 * Gives the user a data fd for a session that has begun, one to write to for `resuming`. `tell` writes the number that it will have
 * there into the answer, before the user has it.
 */
export type OpenDataFd = (resuming: boolean, tell: (fd: number) => void) => void;

/**
 * `VFIO_DEVICE_FEATURE` of a presented v2 device, answered as drivers/vfio/vfio_main.c of Linux 6.12 answers it: which
 * operations exist, what argsz has to hold, and `ENOTTY` for features that a driver lacks: of DMA logging, if there is no `log`.
 */
export function deviceFeature(
  argument: PointingArgument,
  device: V2Device,
  openDataFd: OpenDataFd,
  log?: FeatureLog,
): number {
  const { argsz, flags } = vfio_device_feature.decode(argument.read(HEADER));
  if (argsz < HEADER) throw refuse('EINVAL', `VFIO_DEVICE_FEATURE: argsz ${argsz}`);
  const known = VFIO_DEVICE_FEATURE_MASK | BOTH | VFIO_DEVICE_FEATURE_PROBE;
  if ((flags & ~known) !== 0) throw refuse('EINVAL', `VFIO_DEVICE_FEATURE: flags 0x${flags.toString(16)}`);
  const probe = (flags & VFIO_DEVICE_FEATURE_PROBE) !== 0;
  if (!probe && (flags & BOTH) === BOTH) throw refuse('EINVAL', 'VFIO_DEVICE_FEATURE: GET and SET at once');
  const feature = flags & VFIO_DEVICE_FEATURE_MASK;

  /** True if the operation is to be carried out; false if the user only asks whether it exists. */
  const wanted = (supported: number, size: number): boolean => {
    if ((flags & BOTH & ~supported) !== 0)
      throw refuse('EINVAL', `feature ${feature}: does not support this operation`);
    if (probe) return false;
    if ((flags & BOTH) === 0) throw refuse('EINVAL', `feature ${feature}: neither GET nor SET`);
    if (argsz - HEADER < size) throw refuse('EINVAL', `feature ${feature}: argsz ${argsz}`);
    return true;
  };

  switch (feature) {
    case VFIO_DEVICE_FEATURE_MIGRATION:
      if (wanted(VFIO_DEVICE_FEATURE_GET, vfio_device_feature_migration.size)) {
        const bytes = vfio_device_feature_migration.encode({ flags: BigInt(device.migrationFlags) });
        argument.write(bytes, HEADER);
      }
      return 0;
    case VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
      if (!wanted(BOTH, vfio_device_feature_mig_state.size)) return 0;
      if ((flags & VFIO_DEVICE_FEATURE_GET) !== 0) writeState(argument, device, -1);
      else setState(argument, device, openDataFd);
      return 0;
    case VFIO_DEVICE_FEATURE_MIG_DATA_SIZE:
      if (wanted(VFIO_DEVICE_FEATURE_GET, vfio_device_feature_mig_data_size.size)) {
        const length = BigInt(device.stopCopyLength());
        argument.write(vfio_device_feature_mig_data_size.encode({ stop_copy_length: length }), HEADER);
      }
      return 0;
    case VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2:
      // 7.1; without data, and of devices that have pre-copy
      if (device.precopyInfoV2 === undefined) throw noFeature(feature);
      if ((device.migrationFlags & VFIO_MIGRATION_PRE_COPY) === 0) {
        throw refuse('EINVAL', `feature ${feature}: the device has no pre-copy`);
      }
      if (wanted(VFIO_DEVICE_FEATURE_SET, 0)) device.precopyInfoV2(true);
      return 0;
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_START:
      if (log === undefined) throw noFeature(feature);
      if (!wanted(VFIO_DEVICE_FEATURE_SET, vfio_device_feature_dma_logging_control.size)) return 0;
      return startLogging(argument, log);
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP:
      if (log === undefined) throw noFeature(feature);
      if (wanted(VFIO_DEVICE_FEATURE_SET, 0)) log.stop();
      return 0;
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT:
      if (log === undefined) throw noFeature(feature);
      if (!wanted(VFIO_DEVICE_FEATURE_GET, vfio_device_feature_dma_logging_report.size)) return 0;
      return reportDirty(argument, log);
    default:
      throw noFeature(feature);
  }
}

function noFeature(feature: number): ShimError {
  return refuse('ENOTTY', `VFIO_DEVICE_FEATURE: no feature ${feature}`);
}

/**
 * As vfio_ioctl_device_feature_mig_device_state, says `data_fd` -1 if the request fails, too. A user that cannot be told the number of
 * its data fd gets none, and if that is seen beforehand, no other state either.
 */
function setState(argument: Argument, device: V2Device, openDataFd: OpenDataFd): void {
  const request = argument.read(HEADER + vfio_device_feature_mig_state.size);
  const { device_state } = vfio_device_feature_mig_state.decode(request, HEADER);
  const tell = (data_fd: number): void =>
    argument.write(vfio_device_feature_mig_state.encode({ device_state, data_fd }), HEADER);
  try {
    argument.write(request.subarray(HEADER), HEADER); // it can be answered: nothing is done in vain
    if (!isV2State(device_state)) throw refuse('EINVAL', `MIG_DEVICE_STATE: no state ${device_state}`);
    if (device.setState(device_state) === undefined) tell(-1);
    else openDataFd(device_state === V2.RESUMING, tell);
  } catch (error) {
    if (!isNotReady(error)) tell(-1);
    throw error;
  }
}

function writeState(argument: Argument, device: V2Device, fd: number): void {
  const bytes = vfio_device_feature_mig_state.encode({ device_state: device.getState(), data_fd: fd });
  argument.write(bytes, HEADER);
}
