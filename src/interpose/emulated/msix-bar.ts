import { MSIX_TABLE_SIZE } from '../../sim/pci-capabilities.ts';

/**
 * Reads the BAR of MSI-X: ones of the table, which is vfio-pci's, and zeros of the rest, where nothing is pending. What is written there is
 * dropped (drivers/vfio/pci/vfio_pci_rdwr.c of Linux 6.12: vfio_pci_core_do_io_rw).
 */
export function readMsixBar(offset: number, into: Uint8Array): void {
  into.fill(0);
  into.fill(0xff, 0, Math.max(0, MSIX_TABLE_SIZE - offset));
}
