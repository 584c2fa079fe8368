import { protocolOf, type QemuVersion } from '../../tools/vmm/binaries.ts';

/** What is left to send, in bytes, as QEMU had it when it had looked for dirty memory and was about to decide. */
export interface Look {
  /** Of the guest's memory and of the device. */
  readonly pending: number;
  /** Of the device, by its own word: pending_bytes of v1, MIG_DATA_SIZE of v2. */
  readonly device: number;
  /** What fits into the limit by the bandwidth that QEMU 7.2 has measured; QEMU 10 is told the bandwidth. */
  readonly fits?: number;
}

/** The trace events in which QEMU says so (hw/vfio/trace-events and migration/trace-events of QEMU 7.2 and 10.0). */
export function lookTraces(qemu: QemuVersion): readonly string[] {
  const own =
    protocolOf(qemu) === 'v1'
      ? ['vfio_update_pending', 'migrate_pending']
      : ['vfio_state_pending_exact', 'migrate_pending_exact'];
  return ['migration_bitmap_sync_end', ...own];
}

const DEVICE = /^vfio_(?:update_pending .* pending|state_pending_exact .* stopcopy size) (0x[\da-f]+|\d+)/;
const PENDING = /^migrate_pending(?:_exact exact)? pending size (\d+)(?: max (\d+))?/;

/** The looks in what a QEMU with these trace events has printed. QEMU 7.2 tells what is pending between its looks too. */
export function looksIn(printed: string): Look[] {
  const looks: Look[] = [];
  let device: string | undefined;
  let hasLooked = false;
  for (const line of printed.split('\n')) {
    if (line.startsWith('migration_bitmap_sync_end')) hasLooked = true;
    device = DEVICE.exec(line)?.[1] ?? device;
    const [, pending, fits] = PENDING.exec(line) ?? [];
    if (pending === undefined || device === undefined || !hasLooked) continue;
    looks.push({ pending: Number(pending), device: Number(device), ...(fits !== undefined && { fits: Number(fits) }) });
    hasLooked = false;
  }
  return looks;
}
