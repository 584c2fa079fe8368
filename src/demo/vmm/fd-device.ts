import { VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX } from '../../abi/vfio.ts';
import { vfio_device_migration_info } from '../../abi/vfio-v1.ts';
import { ShimError } from '../../error.ts';
import { findMigrationRegion, regionInfo, type RegionInfo } from '../../vfio/client/device-info.ts';
import type { FdPort } from '../../kernel/fd-port.ts';
import { PortV1Device } from '../../vfio/client/port-v1-device.ts';
import { tell } from './steps.ts';

const [, DEVICE_STATE_AT] = vfio_device_migration_info.fields.device_state;

/** A device as a v1 VMM uses it: registers by pread and pwrite on its descriptor, data section and BAR0 by mmap. */
export class FdDevice extends PortV1Device {
  /** What the guest sees. */
  readonly bar: Uint8Array;
  readonly config: Uint8Array;

  constructor(port: FdPort) {
    super(port, there(findMigrationRegion(port), 'migration region'), true);
    if (this.mapped === undefined) {
      throw new ShimError('ERR_FEATURE_UNSUPPORTED', 'the data section cannot be mapped');
    }
    const bar = there(regionInfo(port, VFIO_PCI_BAR0_REGION_INDEX), 'BAR0');
    this.bar = port.map(bar, 0, bar.size);
    const config = there(regionInfo(port, VFIO_PCI_CONFIG_REGION_INDEX), 'config space');
    this.config = new Uint8Array(config.size);
    port.read(config, 0, this.config);
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
