/**
 * Where the virtual migration regions lie in a device fd's offsets. Real regions begin at `index << 40` with small indices;
 * the window is far above, so that the filter can tell an access to it by the offset's high 32 bits. Each device of a VMM
 * has 2^40 bytes of it.
 */
export const WINDOW_HIGH = 0x7656_0000;
export const WINDOW_MASK = 0xffff_0000;
/** Of the high 32 bits: a region, and a device's part of the window, are 2^40 bytes. */
export const DEVICE_SHIFT = 8;
/** The high 32 bits of offsets behind BAR0 of an emulated device, the window among them: a region begins at its index << 40. */
export const REGIONS_HIGH = [0x100, 0x7fff_ffff] as const;
export const MAX_DEVICES = 256;

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
