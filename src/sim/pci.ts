import { PCI_BASE_ADDRESS_2, PCI_CAPABILITY_LIST, PCI_STATUS, PCI_STATUS_CAP_LIST } from '../abi/pci.ts';
import { kindOf, type SimSpec } from './drivers.ts';
import { CONFIG_SIZE } from './config-options.ts';
import {
  firstCapability,
  MSIX_BAR,
  MSIX_BAR_SIZE,
  putCapabilities,
  putExtendedCapabilities,
} from './pci-capabilities.ts';

const MEMORY_64_PREFETCHABLE = 0x0c;
const MEMORY_32 = 0x00;

/** Memory BARs above this size are 64-bit, as firmware places them above 4 GiB. */
const LARGEST_32_BIT_BAR = 256 * 1024 * 1024;

/** The size of BAR0 in bytes: a power of two, at least a page. */
export function barSize(spec: SimSpec): number {
  return Math.max(4096, 2 ** Math.ceil(Math.log2(spec.size)));
}

/** The sizes of a device's BARs, by their numbers. */
export function barSizes(spec: SimSpec): Readonly<Record<number, number>> {
  return { 0: barSize(spec), [MSIX_BAR]: MSIX_BAR_SIZE };
}

/** A BAR's bits that say what it is, not where (linux/pci_regs.h: PCI_BASE_ADDRESS_MEM_MASK). */
const BAR_FLAGS = 0xf;
/** Of COMMAND: memory, bus master, parity and system errors, and INTx off. There are no I/O ports. */
const COMMAND_BITS = 0x0546;

/** What a device's configuration space begins with, and which of its bits can be written. */
export interface ConfigSpace {
  readonly initial: Uint8Array;
  readonly writable: Uint8Array;
}

/**
 * The configuration space of a simulated device: a type 0 header with BAR0, the BAR of MSI-X, an INTx pin, and capabilities. What can be
 * written of the header is COMMAND's bits, where the BARs are, and bytes that mean nothing to the device; what vfio-pci keeps from a function, as
 * STATUS, is not among it (init_pci_cap_basic_perm). All else is as it is: there is no other BAR, and no ROM.
 */
export function configSpace(spec: SimSpec): ConfigSpace {
  const space = { initial: new Uint8Array(spec.config), writable: new Uint8Array(spec.config) };
  const config = new DataView(space.initial.buffer);
  const writable = new DataView(space.writable.buffer);
  const { vendor, device, class: code } = kindOf(spec).pci;
  config.setUint16(0x00, vendor, true);
  config.setUint16(0x02, device, true);
  writable.setUint16(0x04, COMMAND_BITS, true);
  config.setUint16(PCI_STATUS, PCI_STATUS_CAP_LIST, true);
  config.setUint32(0x08, (code << 8) | 1, true);
  writable.setUint8(0x0c, 0xff); // cache line size
  writable.setUint8(0x0d, 0xff); // latency timer
  const size = barSize(spec);
  const is64 = size > LARGEST_32_BIT_BAR;
  const place = BigInt.asUintN(64, -BigInt(size)) & ~BigInt(BAR_FLAGS);
  config.setUint32(0x10, is64 ? MEMORY_64_PREFETCHABLE : MEMORY_32, true);
  writable.setUint32(0x10, Number(BigInt.asUintN(32, place)), true);
  if (is64) writable.setUint32(0x14, Number(place >> 32n), true);
  writable.setUint32(PCI_BASE_ADDRESS_2, -MSIX_BAR_SIZE, true);
  config.setUint16(0x2c, vendor, true);
  config.setUint16(0x2e, device, true);
  config.setUint8(PCI_CAPABILITY_LIST, firstCapability);
  writable.setUint8(0x3c, 0xff); // interrupt line
  config.setUint8(0x3d, 1);
  putCapabilities(config, writable, spec['reset-method']);
  if (spec.config > CONFIG_SIZE) putExtendedCapabilities(config, vendor, device);
  return space;
}

/** What that configuration space begins with. */
export function pciConfig(spec: SimSpec): Uint8Array {
  return configSpace(spec).initial;
}
