import { VFIO_DEVICE_FEATURE } from '../../src/abi/vfio.ts';
import {
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
  vfio_device_feature_mig_state,
} from '../../src/abi/vfio-v2.ts';
import type { V2State } from '../../src/v2/states.ts';
import { value, type DevicePuppet } from './vfio-puppet.ts';

const SIZE = vfio_device_feature.size + vfio_device_feature_mig_state.size;

/** Enters a state of v2 and returns the data fd, -1 if no session has begun. */
export async function setState(device: DevicePuppet, state: V2State): Promise<number> {
  return (await migState(device, VFIO_DEVICE_FEATURE_SET, state)).data_fd;
}

/** The state of v2 that the device is in. */
export async function getState(device: DevicePuppet): Promise<number> {
  return (await migState(device, VFIO_DEVICE_FEATURE_GET)).device_state;
}

async function migState(
  device: DevicePuppet,
  operation: number,
  device_state = 0,
): Promise<ReturnType<typeof vfio_device_feature_mig_state.decode>> {
  const bytes = new Uint8Array(SIZE);
  vfio_device_feature.encode({ argsz: SIZE, flags: operation | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE }, bytes);
  vfio_device_feature_mig_state.encode({ device_state, data_fd: -1 }, bytes, vfio_device_feature.size);
  const outcome = await device.user.ioctl(device.fd, VFIO_DEVICE_FEATURE, bytes);
  value(outcome);
  return vfio_device_feature_mig_state.decode(outcome.bytes, vfio_device_feature.size);
}
