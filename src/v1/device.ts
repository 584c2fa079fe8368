/**
 * A device that speaks migration protocol v1: a region with `struct vfio_device_migration_info` at offset 0 and a data
 * section behind it (linux/vfio.h, 5.8 to 5.17). Accesses are synchronous and complete or throw; nothing is partial.
 */
export interface V1Device {
  /** Size of the region in bytes: the registers' page and the data section. */
  readonly regionSize: number;
  /** Where the data section lies in the region, in bytes; page aligned. */
  readonly dataSection: { readonly offset: number; readonly size: number };
  /** The data section's memory if it is shared with the driver (mmap); without it, use read() and write(). */
  readonly mapped: Uint8Array | undefined;
  /**
   * pread of `into.length` bytes at `offset`. Registers take only their native width, the data section any.
   * Throws `EINVAL` for a bad access, `EAGAIN` (code `ERR_NO_DATA_YET`) when the driver needs time: repeat the call.
   */
  read(offset: number, into: Uint8Array): void;
  /** pwrite of `from` at `offset`, as read(). */
  write(offset: number, from: Uint8Array): void;
  /**
   * For whoever has time while the user takes the buffer that data_size has just shown: the driver gets the next one ready. What
   * is wrong is told by the next access too. Absent if there is nothing to be gained.
   */
  readonly readAhead?: (() => void) | undefined;
  /**
   * Bytes of the buffer that data_size has just shown, where this has them, until the next access to a register: whoever takes them from there
   * spares a copy. `undefined` if it has not all of them in one piece; throws as read() does. Absent if it never has.
   */
  bufferAt?(offset: number, length: number): Uint8Array | undefined;
  /** `VFIO_DEVICE_RESET`: device_state is 1 afterwards. */
  reset(): void;
}
