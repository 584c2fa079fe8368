import { KIB, MIB, type Case } from './case.ts';

const FITS = 'stops it within the limit';
const ABOVE = 'stops it above the limit';
const NEVER = 'does not stop the VM';

/** mlx5's firmware is asked for the size of a whole image (drivers/vfio/pci/mlx5/main.c: mlx5vf_pci_get_data_size, Linux 7.1). */
const IMAGE = {
  bridged: FITS,
  why: 'MIG_DATA_SIZE of `mlx5` is that of a whole image, however much of it was sent in pre-copy; pending_bytes of `vendor-v1` is what is left',
} as const;

const UNTOLD = {
  bridged: ABOVE,
  why: 'MIG_DATA_SIZE of `hisi` is the whole state; pending_bytes of `hisi-v1` in pre-copy is its match data, and the bridge tells what is pending',
} as const;

/** At 100 MiB/s 30 MiB fit into the limit, at 128 KiB/s 38 KiB. The v1 driver that gives all after the stop has no mmap, and is slow. */
export const cases: readonly Case[] = [
  { qemu: '7.2', pace: 'in pre-copy', size: MIB, bandwidth: 100 * MIB, expected: FITS },
  { qemu: '7.2', pace: 'in pre-copy', size: 64 * MIB, bandwidth: 100 * MIB, expected: FITS, quick: true },
  { qemu: '7.2', pace: 'in pre-copy', size: 512 * MIB, bandwidth: 100 * MIB, expected: FITS },
  { qemu: '7.2', pace: 'after the stop', size: 64 * KIB, bandwidth: 100 * MIB, expected: FITS },
  { qemu: '7.2', pace: 'after the stop', size: 64 * KIB, bandwidth: 128 * KIB, expected: ABOVE, quick: true },
  { qemu: '10.0', pace: 'in pre-copy', size: MIB, bandwidth: 100 * MIB, expected: FITS, quick: true },
  { qemu: '10.0', pace: 'in pre-copy', size: 64 * MIB, bandwidth: 100 * MIB, expected: NEVER, difference: IMAGE },
  { qemu: '10.0', pace: 'in pre-copy', size: 512 * MIB, bandwidth: 100 * MIB, expected: NEVER, difference: IMAGE },
  { qemu: '10.0', pace: 'after the stop', size: 64 * KIB, bandwidth: 100 * MIB, expected: FITS },
  {
    qemu: '10.0',
    pace: 'after the stop',
    size: 64 * KIB,
    bandwidth: 128 * KIB,
    expected: NEVER,
    difference: UNTOLD,
    quick: true,
  },
];
