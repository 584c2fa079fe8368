import { vfio_device_migration_info } from '../../abi/vfio-v1.ts';
import { isV1State, V1 } from '../../v1/states.ts';
import { V1RegisterAccess } from '../../v1/registers.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import { PassedOnV1 } from './passed-on-v1.ts';

const [, STATE_AT] = vfio_device_migration_info.fields.device_state;
const STATE_SIZE = 4;

/**
 * Throws `EINVAL` for a write to a migration region that no v1 server must see: of libvfio-user's, device_state 6 stays for good, and it ends
 * over values from 8 on (until September 2023, lib/migration.c: migration_region_access_registers looks up the value's name first).
 */
export function checkStateWrite(offset: number, data: Uint8Array): void {
  if (offset >= STATE_AT + STATE_SIZE) return;
  const value = data.length === STATE_SIZE ? new DataView(data.buffer, data.byteOffset).getUint32(0, true) : undefined;
  if (offset === STATE_AT && value !== undefined && isV1State(value) && value !== V1.ERROR) return;
  throw refuse(
    'EINVAL',
    `migration region: a write of ${data.length} bytes at ${offset}, device_state ${value ?? '?'}`,
  );
}

/**
 * A device behind a v1 server of libvfio-user, which refuses to be reset while its device is stopped (lib/libvfio-user.c until September 2023:
 * cmd_allowed_when_stopped_and_copying): it runs before.
 */
export class ResettableV1 extends PassedOnV1 {
  override reset(): void {
    const registers = new V1RegisterAccess(this.device);
    const state = registers.deviceState();
    if (state === V1.STOP || state === V1.STOP_COPY) registers.setDeviceState(V1.RUNNING);
    this.device.reset();
  }
}
