import { MSIX_TABLE_SIZE, PBA_AT } from '../../sim/pci-capabilities.ts';

/**
 * A register of 32 bits behind the pending bits: what is written has the device raise an interrupt for each bit, of the vector that has the
 * bit's number; what is read is how many it has raised in the run.
 */
export const DOORBELL_AT = 0xc00;

/** What the BAR shows of a device's interrupts, and does. */
interface BarIrqs {
  /** A bit for each vector. */
  readonly pendingVectors: number;
  readonly raised: number;
  ring(vectors: number): void;
}

/**
 * Reads the BAR of MSI-X: ones of the table, which is vfio-pci's; the bits of vectors that are pending; and the doorbell. The rest is zeros
 * (drivers/vfio/pci/vfio_pci_rdwr.c of Linux 6.12: vfio_pci_core_do_io_rw).
 */
export function readMsixBar(irqs: BarIrqs, offset: number, into: Uint8Array): void {
  const put = (at: number, value: number): void => {
    for (let n = 0; n < 4; n += 1) {
      const place = at + n - offset;
      if (place >= 0 && place < into.length) into[place] = (value >>> (8 * n)) & 0xff;
    }
  };
  into.fill(0);
  into.fill(0xff, 0, Math.max(0, MSIX_TABLE_SIZE - offset));
  put(PBA_AT, irqs.pendingVectors);
  put(DOORBELL_AT, irqs.raised);
}

/** Writes there: but for the doorbell, which is written whole, it is dropped. */
export function writeMsixBar(irqs: BarIrqs, offset: number, from: Uint8Array): void {
  if (offset !== DOORBELL_AT || from.length !== 4) return;
  irqs.ring(new DataView(from.buffer, from.byteOffset, 4).getUint32(0, true));
}
