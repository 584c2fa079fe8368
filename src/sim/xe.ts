import { VFIO_MIGRATION_P2P, VFIO_MIGRATION_STOP_COPY } from '../abi/vfio-v2.ts';
import { commonOptions, compatOption, streamOptions } from './common-options.ts';
import type { V2Kind } from './driver-kind.ts';
import { count, fits32Bits, flag } from './option.ts';
import { XeDevice } from './xe-device.ts';
import { PACKET_DATA } from './xe-packets.ts';

const migrationFlags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P;
const device = 0xe211;

const options = {
  ...commonOptions(64 * 1024),
  ...streamOptions,
  ...compatOption,
  unready: count('how many reads find each packet not made yet', 0, fits32Bits),
  nosize: flag('1: MIG_DATA_SIZE fails, which the driver hands on as a size of almost 2^64'),
};

/** `xe`: packets and reads that wait, as Intel's GPU driver has them (drivers/vfio/pci/xe/main.c, Linux 7.1). */
export const xe: V2Kind<typeof options> = {
  protocol: 'v2',
  summary: 'Intel GPUs: packets, reads that wait, no pre-copy',
  options,
  pci: { vendor: 0x8086, device, class: 0x038000 },
  small: { size: 16 * 1024 },
  keptSize: () => PACKET_DATA,
  identity: ({ compat }) => ({ compat: String(compat) }),
  create: (values, memory) => new XeDevice(values, migrationFlags, device, memory),
};
