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
