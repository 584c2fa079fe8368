import type { V1Device } from '../v1/device.ts';

/** At most `length` bytes of a driver's data section as it is mapped here, from an offset in the region; fewer at its end. */
export function mappedAt(device: V1Device, offset: number, length: number): Uint8Array | undefined {
  const { mapped, dataSection } = device;
  const at = offset - dataSection.offset;
  return mapped !== undefined && at >= 0 && at < mapped.length ? mapped.subarray(at, at + length) : undefined;
}
