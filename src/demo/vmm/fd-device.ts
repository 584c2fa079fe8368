import { VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX } from '../../abi/vfio.ts';
import { vfio_device_migration_info } from '../../abi/vfio-v1.ts';
import { ShimError } from '../../error.ts';
import { findMigrationRegion, regionInfo, type RegionInfo } from '../../kernel/device-info.ts';
import type { DeviceHandle } from '../../kernel/handle.ts';
import { KernelV1Device } from '../../kernel/v1-device.ts';
import { addressOf, syscall } from '../../sys/libc.ts';
import { mapSharedMemory } from '../../sys/memory.ts';
import { tell } from './steps.ts';

const [, DEVICE_STATE_AT] = vfio_device_migration_info.fields.device_state;

/** A device as a v1 VMM uses it: registers by pread and pwrite on its descriptor, data section and BAR0 by mmap. */
export class FdDevice extends KernelV1Device {
  /** What the guest sees. */
  readonly bar: Uint8Array;
  readonly config: Uint8Array;

  constructor(handle: DeviceHandle) {
    super(handle, there(findMigrationRegion(handle), 'migration region'), true);
    if (this.mapped === undefined) {
      throw new ShimError('ERR_FEATURE_UNSUPPORTED', 'the data section cannot be mapped');
    }
    const bar = there(regionInfo(handle, VFIO_PCI_BAR0_REGION_INDEX), 'BAR0');
    this.bar = mapSharedMemory(handle.number, bar.size, bar.offset).bytes;
    const { offset, size } = there(regionInfo(handle, VFIO_PCI_CONFIG_REGION_INDEX), 'config space');
    this.config = new Uint8Array(size);
    // SAFETY: `config` is referenced until the call returns
    syscall('config space', 'pread64', handle.number, addressOf(this.config), size, offset);
  }

  override write(offset: number, from: Uint8Array): void {
    super.write(offset, from);
    if (offset === DEVICE_STATE_AT) tell({ step: 'device_state', value: from[0] ?? 0 });
  }
}

function there(region: RegionInfo | undefined, what: string): RegionInfo {
  if (region !== undefined) return region;
  throw new ShimError('ERR_FEATURE_UNSUPPORTED', `the device has no ${what}`);
}
