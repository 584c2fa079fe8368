import { VFIO_MIGRATION_P2P, VFIO_MIGRATION_PRE_COPY, VFIO_MIGRATION_STOP_COPY } from '../abi/vfio-v2.ts';
import { commonOptions, compatOption, streamOptions } from './common-options.ts';
import type { V2Kind } from './driver-kind.ts';
import { count, within } from './option.ts';
import { VirtioDevice, virtioKeptSize } from './virtio-device.ts';

const migrationFlags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY;

const options = {
  ...commonOptions(64 * 1024),
  ...streamOptions,
  ...compatOption,
  ratelimit: count('of so many precopy-info calls the driver asks its device in one', 8, within(1, 2 ** 32 - 1)),
};

/** `virtio`: the whole state again and again, as NVIDIA's driver sends it (drivers/vfio/pci/virtio/migrate.c, Linux 7.1). */
export const virtio: V2Kind<typeof options> = {
  protocol: 'v2',
  summary: 'virtio: the whole state in pre-copy, as often as it is asked for, and once more',
  options,
  pci: { vendor: 0x1af4, device: 0x1041, class: 0x020000 },
  small: { size: 16 * 1024 },
  keptSize: ({ size }) => virtioKeptSize(size),
  identity: ({ compat }) => ({ compat: String(compat) }),
  create: (values, memory) => new VirtioDevice(values, migrationFlags, memory),
};
