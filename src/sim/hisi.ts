import { VFIO_MIGRATION_PRE_COPY, VFIO_MIGRATION_STOP_COPY } from '../abi/vfio-v2.ts';
import { blockKind } from './block-driver.ts';
import { HISI_LARGEST_MEMORY, HISI_STATE_SIZE, HisiReal } from './hisi-real.ts';
import { flag } from './option.ts';

const migrationFlags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY;

/** `hisi`: pre-copy and no P2P, as HiSilicon's driver has it (drivers/vfio/pci/hisilicon/hisi_acc_vfio_pci.c, Linux 6.12). */
export const hisi = blockKind({
  summary: 'HiSilicon accelerators: no P2P',
  pci: { vendor: 0x19e5, device: 0xa256, class: 0x0b4000 },
  migrationFlags,
  magic: 0x48495341,
  realSize: HISI_STATE_SIZE,
  largestMemory: HISI_LARGEST_MEMORY,
  realOptions: { up: flag("0: the guest's driver is not up, and the device has no state to move", true) },
  createReal: (values, memory) => new HisiReal(values, migrationFlags, memory),
});
