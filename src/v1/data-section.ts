import type { V1Device } from './device.ts';

/** The smallest page of a machine that a driver runs on: what crosses none of these crosses no larger one. */
const PAGE = 4096;

/** At most `length` bytes of a driver's data section as it is mapped here, from an offset in the region; fewer at its end. */
export function mappedAt(device: V1Device, offset: number, length: number): Uint8Array | undefined {
  const { mapped, dataSection } = device;
  const at = offset - dataSection.offset;
  return mapped !== undefined && at >= 0 && at < mapped.length ? mapped.subarray(at, at + length) : undefined;
}

/** All of `length` bytes as mappedAt() finds them; `undefined` if the mapping has not all of them. */
export function wholeMappedAt(device: V1Device, offset: number, length: number): Uint8Array | undefined {
  const bytes = mappedAt(device, offset, length);
  return bytes?.length === length ? bytes : undefined;
}

/**
 * How many of `length` bytes at an offset are read at once if a buffer, which begins at `begin`, is not mapped: none that crosses a
 * page. v1 drivers were met by QEMU 5.2 to 7.2 alone, which reads 8 bytes at most (hw/vfio/migration.c: vfio_mig_rw), and one
 * garbles what crosses a page of its state (mlx5, patches of October 2021: mlx5vf_pci_copy_device_state_to_user). Its pages begin
 * with the buffer, at 32 in the region; those of others with the region.
 */
export function pieceAt(offset: number, begin: number, length: number): number {
  return Math.min(length, PAGE - (offset % PAGE), PAGE - ((offset - begin) % PAGE));
}
