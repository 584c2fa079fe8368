import { VFIO_MIGRATION_P2P, VFIO_MIGRATION_PRE_COPY, VFIO_MIGRATION_STOP_COPY } from '../abi/vfio-v2.ts';
import { blockKind } from './block-driver.ts';
import { QAT_LARGEST_MEMORY, QAT_STATE_SIZE, QatReal } from './qat-real.ts';

const migrationFlags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY;

/** `qat`: all of v2, as Intel's driver offers it (drivers/vfio/pci/qat/main.c, Linux 6.12). */
export const qat = blockKind({
  summary: 'Intel QAT: setup readable in pre-copy, memory in stop-and-copy',
  pci: { vendor: 0x8086, device: 0x4941, class: 0x0b4000 },
  migrationFlags,
  magic: 0x51415434,
  realSize: QAT_STATE_SIZE,
  largestMemory: QAT_LARGEST_MEMORY,
  realOptions: {},
  createReal: (values, memory) => new QatReal(values, migrationFlags, memory),
});
