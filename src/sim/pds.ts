import { VFIO_MIGRATION_P2P, VFIO_MIGRATION_STOP_COPY } from '../abi/vfio-v2.ts';
import { blockKind } from './block-driver.ts';

/** `pds`: P2P and no pre-copy, as AMD's driver has it (drivers/vfio/pci/pds/vfio_dev.c, Linux 6.12). */
export const pds = blockKind({
  summary: 'AMD Pensando: no pre-copy',
  pci: { vendor: 0x1dd8, device: 0x1003, class: 0x020000 },
  migrationFlags: VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P,
  magic: 0x50445331,
});
