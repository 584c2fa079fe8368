import { VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_NUM_REGIONS } from '../../abi/vfio.ts';

/**
 * Where the virtual migration regions lie in a device fd's offsets. Real regions begin at `index << 40` with small indices;
 * the window is far above, so that the filter can tell an access to it by the offset's high 32 bits. Each device of a VMM
 * has 2^40 bytes of it.
 */
export const WINDOW_HIGH = 0x7656_0000;
export const WINDOW_MASK = 0xffff_0000;
/** Of the high 32 bits: a region, and a device's part of the window, are 2^40 bytes. */
export const DEVICE_SHIFT = 8;
/**
 * The high 32 bits of offsets in the regions of an emulated device, the window among them. A region begins at its index << 40, as in
 * vfio-pci, but BAR0, which comes behind all others: so its file ends where BAR0 ends, and no other file is accessed at such offsets.
 */
export const REGIONS_HIGH = [0x100, 0x7fff_ffff] as const;
const BAR0_PLACE = VFIO_PCI_NUM_REGIONS;
export const BAR0_HIGH = BAR0_PLACE << DEVICE_SHIFT;
export const CONFIG_HIGH = VFIO_PCI_CONFIG_REGION_INDEX << DEVICE_SHIFT;
const SPAN = 2 ** 40;
/** Where BAR0 and what is read of config space are in a device's file. */
export const BAR0_OFFSET = BAR0_PLACE * SPAN;
export const CONFIG_OFFSET = VFIO_PCI_CONFIG_REGION_INDEX * SPAN;
export const MAX_DEVICES = 256;

/** Where a region of an emulated device begins. */
export function ownRegionOffset(index: number): bigint {
  return BigInt(index === VFIO_PCI_BAR0_REGION_INDEX ? BAR0_OFFSET : index * SPAN);
}

/** The region that an offset means, of which these are the high 32 bits, and which is in REGIONS_HIGH; there may be none of that index. */
export function ownRegionAt(high: number): number {
  const place = high >>> DEVICE_SHIFT;
  return place === BAR0_PLACE ? VFIO_PCI_BAR0_REGION_INDEX : place;
}

/** Offset of the migration region of the n-th device. */
export function regionOffset(device: number): bigint {
  return BigInt(WINDOW_HIGH + (device << DEVICE_SHIFT)) << 32n;
}

/** The device that an offset, of which these are the high 32 bits, means; -1 outside the window. */
export function deviceInWindow(high: number): number {
  return (high & WINDOW_MASK) >>> 0 === WINDOW_HIGH ? (high >> DEVICE_SHIFT) & (MAX_DEVICES - 1) : -1;
}

/** The place in the device's region that an offset means, in the window or before it. */
export function offsetInRegion(high: number, low: number): number {
  return (high & 0xff) * 2 ** 32 + low;
}
