import { VFIO_MIGRATION_PRE_COPY, VFIO_MIGRATION_STOP_COPY } from '../abi/vfio-v2.ts';
import { blockKind } from './block-driver.ts';

/** `hisi`: pre-copy and no P2P, as HiSilicon's driver has it (drivers/vfio/pci/hisilicon/hisi_acc_vfio_pci.c, Linux 6.12). */
export const hisi = blockKind({
  summary: 'HiSilicon accelerators: no P2P',
  pci: { vendor: 0x19e5, device: 0xa256, class: 0x0b4000 },
  migrationFlags: VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY,
  magic: 0x48495341,
});
