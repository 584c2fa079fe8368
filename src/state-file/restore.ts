import { DraftRestore } from '../v1/drafts/restore.ts';
import { V1Restore } from '../v1/restore.ts';
import { V2Restore } from '../v2/restore.ts';
import { ShimError } from '../error.ts';
import type { WaitForDevice } from '../wait.ts';
import { recovering, stateName, type MigratableDevice } from '../device/migratable.ts';

/** What a v2 VMM writes at once (QEMU 10: VFIO_MIG_DEFAULT_DATA_BUFFER_SIZE). */
const V2_PIECE = 1024 * 1024;

/**
 * Restores a device as a VMM does: RESUMING, the buffers, RUNNING. To a driver of v1 or of a draft each buffer that its data section can hold
 * goes as the one transaction that it was at the source. On any failure, of `buffers` too, the device is reset.
 */
export function restoreDevice(
  target: MigratableDevice,
  buffers: (most: number) => Iterable<Uint8Array>,
  wait: WaitForDevice,
): void {
  recovering(target, 'reset', () => {
    const restore = restoreOf(target, wait);
    const most = target.protocol === 'v2' ? V2_PIECE : target.device.dataSection.size;
    try {
      restore.setup();
      for (const buffer of buffers(most)) restore.load(buffer);
      restore.complete();
    } finally {
      if (restore instanceof V2Restore) restore.cleanup();
    }
    const state = stateName(target);
    if (state !== 'RUNNING') {
      throw new ShimError('ERR_DEVICE', `the device took the state and is in ${state}, not RUNNING`, { errno: 'EIO' });
    }
  });
}

/** The procedure of a VMM that speaks what the device does. */
function restoreOf(target: MigratableDevice, wait: WaitForDevice): V1Restore | V2Restore | DraftRestore {
  switch (target.protocol) {
    case 'v1':
      return new V1Restore(target.device, wait);
    case 'v2':
      return new V2Restore(target.device, wait);
    default:
      return new DraftRestore(target.device, wait);
  }
}
