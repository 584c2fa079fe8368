import { KIB, MIB, type Case } from './case.ts';

const FITS = 'stops it within the limit';
const ABOVE = 'stops it above the limit';
const NEVER = 'does not stop the VM';

/** mlx5's firmware is asked for the size of a whole image (drivers/vfio/pci/mlx5/main.c: mlx5vf_pci_get_data_size, Linux 7.1). */
const IMAGE = {
  bridged: FITS,
  why:
    "The twins differ. QEMU 10 adds the device's MIG_DATA_SIZE to the memory that is left. That of `mlx5` is the size of a whole image, however " +
    'much of it was sent in pre-copy: at each look it is above the 30 MiB that fit. That of a bridged `vendor-v1` is its pending_bytes, less what ' +
    'was read since, which falls with each buffer until it fits.',
} as const;

/** The match data is of 32 bytes (sim/setup-block.ts). */
const UNTOLD = {
  bridged: ABOVE,
  why:
    'The twins differ. MIG_DATA_SIZE of `hisi` is the whole state at each look, above the 38 KiB that fit. pending_bytes of `hisi-v1` in pre-copy is ' +
    'its match data, 32 bytes, and 0 once they are read: v1 has no word for what comes after the stop. The bridge has nothing else to tell, and says 1, ' +
    'as 0 is the end of the stream. So QEMU 10 stops the VM, and then gets the whole state; as QEMU 7.2 does with `hisi-v1` natively.',
} as const;

/**
 * Pages a second of a device beside which QEMU sends 4 MiB/s: 2 MiB/s, with which it comes to an end, and 16 MiB/s, with which nearly all of the
 * device's window is dirty whenever it looks, three times what fits.
 */
const SLOW = 500;
const FAST = 4000;

/** At 100 MiB/s 30 MiB fit into the limit, at 128 KiB/s 38 KiB, at 4 MiB/s 1.2 MiB. The v1 driver that gives all after the stop has no mmap, and is slow. */
export const cases: readonly Case[] = [
  { qemu: '7.2', pace: 'in pre-copy', size: MIB, bandwidth: 100 * MIB, expected: FITS },
  { qemu: '7.2', pace: 'in pre-copy', size: 64 * MIB, bandwidth: 100 * MIB, expected: FITS, quick: true },
  { qemu: '7.2', pace: 'in pre-copy', size: 512 * MIB, bandwidth: 100 * MIB, expected: FITS },
  { qemu: '7.2', pace: 'after the stop', size: 64 * KIB, bandwidth: 100 * MIB, expected: FITS },
  { qemu: '7.2', pace: 'after the stop', size: 64 * KIB, bandwidth: 128 * KIB, expected: ABOVE, quick: true },
  { qemu: '7.2', pace: 'in pre-copy', size: 256 * KIB, bandwidth: 4 * MIB, dma: SLOW, expected: FITS },
  { qemu: '7.2', pace: 'in pre-copy', size: 256 * KIB, bandwidth: 4 * MIB, dma: FAST, expected: NEVER, quick: true },
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
  { qemu: '10.0', pace: 'in pre-copy', size: 256 * KIB, bandwidth: 4 * MIB, dma: SLOW, expected: FITS },
  { qemu: '10.0', pace: 'in pre-copy', size: 256 * KIB, bandwidth: 4 * MIB, dma: FAST, expected: NEVER, quick: true },
];
