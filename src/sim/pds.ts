import { VFIO_MIGRATION_P2P, VFIO_MIGRATION_STOP_COPY } from '../abi/vfio-v2.ts';
import { blockKind } from './block-driver.ts';
import { count, fits32Bits } from './option.ts';
import { PDS_LARGEST_MEMORY, PDS_STATE_SIZE, PdsReal } from './pds-real.ts';

const migrationFlags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P;
const magic = 0x50445331;

/** `pds`: P2P and no pre-copy, as AMD's driver has it (drivers/vfio/pci/pds/vfio_dev.c, Linux 6.12). */
export const pds = blockKind({
  summary: 'AMD Pensando: no pre-copy',
  pci: { vendor: 0x1dd8, device: 0x1003, class: 0x020000 },
  migrationFlags,
  magic,
  realSize: PDS_STATE_SIZE,
  largestMemory: PDS_LARGEST_MEMORY,
  realOptions: {
    recovery: count(
      'before which read or write of the data firmware recovers from a failure; 0 is never',
      0,
      fits32Bits,
    ),
  },
  createReal: (values, memory) => new PdsReal(values, migrationFlags, magic, memory),
});
