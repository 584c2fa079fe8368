import {
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_ROM_REGION_INDEX,
  VFIO_PCI_VGA_REGION_INDEX,
} from '../abi/vfio-device.ts';

const NAMES: ReadonlyMap<number, string> = new Map([
  ...Array.from({ length: 6 }, (_, bar) => [bar, `BAR${bar}`] as const),
  [VFIO_PCI_ROM_REGION_INDEX, 'ROM'],
  [VFIO_PCI_CONFIG_REGION_INDEX, 'config'],
  [VFIO_PCI_VGA_REGION_INDEX, 'VGA'],
]);

/** How recordings name a region of vfio-pci: by its index where it has no name (linux/vfio.h: VFIO_PCI_*_REGION_INDEX). */
export function regionName(index: number): string {
  return NAMES.get(index) ?? String(index);
}

/** The most bytes of an access that are shown as a number. */
const MOST = 8;

/** What was read or written, as a little-endian number in hexadecimal; `undefined` if it is too much, or nothing. */
export function dataOf(bytes: Uint8Array): string | undefined {
  if (bytes.length === 0 || bytes.length > MOST) return undefined;
  return `0x${Buffer.from(bytes).reverse().toString('hex')}`;
}
