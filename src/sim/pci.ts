import { kindOf, type SimSpec } from './drivers.ts';

const PCI_CONFIG_SIZE = 256;
const MEMORY_64_PREFETCHABLE = 0x0c;
const MEMORY_32 = 0x00;

/** Memory BARs above this size are 64-bit, as firmware places them above 4 GiB. */
const LARGEST_32_BIT_BAR = 256 * 1024 * 1024;

/** The size of BAR0 in bytes: a power of two, at least a page. */
export function barSize(spec: SimSpec): number {
  return Math.max(4096, 2 ** Math.ceil(Math.log2(spec.size)));
}

/** A BAR's bits that say what it is, not where (linux/pci_regs.h: PCI_BASE_ADDRESS_MEM_MASK). */
const BAR_FLAGS = 0xf;
/** Of COMMAND: memory, bus master, parity and system errors, and INTx off. There are no I/O ports. */
const COMMAND_BITS = 0x0546;

/**
 * The bits of that configuration space that can be written: COMMAND's, where BAR0 is, and bytes that mean nothing to the device. STATUS is
 * not among them: to write a bit there clears it. All else is as it is: there is no other BAR, and no ROM.
 */
export function pciConfigWritable(spec: SimSpec): Uint8Array {
  const bytes = new Uint8Array(PCI_CONFIG_SIZE);
  const view = new DataView(bytes.buffer);
  const size = BigInt(barSize(spec));
  view.setUint16(0x04, COMMAND_BITS, true);
  view.setUint8(0x0c, 0xff); // cache line size
  view.setUint8(0x0d, 0xff); // latency timer
  const place = BigInt.asUintN(64, -size) & ~BigInt(BAR_FLAGS);
  view.setUint32(0x10, Number(BigInt.asUintN(32, place)), true);
  if (barSize(spec) > LARGEST_32_BIT_BAR) view.setUint32(0x14, Number(place >> 32n), true);
  view.setUint8(0x3c, 0xff); // interrupt line
  return bytes;
}

/** The configuration space of a simulated device: a type 0 header with BAR0 and an INTx pin. */
export function pciConfig(spec: SimSpec): Uint8Array {
  const { vendor, device, class: code } = kindOf(spec).pci;
  const bytes = new Uint8Array(PCI_CONFIG_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint16(0x00, vendor, true);
  view.setUint16(0x02, device, true);
  view.setUint32(0x08, (code << 8) | 1, true);
  view.setUint32(0x10, barSize(spec) > LARGEST_32_BIT_BAR ? MEMORY_64_PREFETCHABLE : MEMORY_32, true);
  view.setUint16(0x2c, vendor, true);
  view.setUint16(0x2e, device, true);
  view.setUint8(0x3d, 1);
  return bytes;
}
