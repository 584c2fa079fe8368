import { VFIO_MIGRATION_P2P, VFIO_MIGRATION_PRE_COPY, VFIO_MIGRATION_STOP_COPY } from '../abi/vfio-v2.ts';
import { blockKind } from './block-driver.ts';

/** `qat`: all of v2, as Intel's driver offers it (drivers/vfio/pci/qat/main.c, Linux 6.12). */
export const qat = blockKind({
  summary: 'Intel QAT: setup readable in pre-copy, memory in stop-and-copy',
  pci: { vendor: 0x8086, device: 0x4941, class: 0x0b4000 },
  migrationFlags: VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY,
  magic: 0x51415434,
});
