/** The generations before v1, by the year of their patches. */
export type Draft = 'draft-2018' | 'draft-2019';

export function isDraft(protocol: string): protocol is Draft {
  return protocol === 'draft-2018' || protocol === 'draft-2019';
}

/**
 * A device with a migration region as a draft has it: registers of the draft at its beginning, and a data section that its user maps.
 * Accesses are synchronous and complete or throw; nothing is partial.
 */
export interface DraftDevice {
  readonly draft: Draft;
  /** Size of the region in bytes: the registers' page and the data section. */
  readonly regionSize: number;
  /** Where the data section lies in the region, in bytes; page aligned. The bitmap of dirty pages comes to its beginning, too. */
  readonly dataSection: { readonly offset: number; readonly size: number };
  /** The data section's memory. The published VMMs do nothing without it. */
  readonly mapped: Uint8Array;
  /**
   * pread of `into.length` bytes at `offset`. Registers take only their native width, the data section any.
   * Throws `EINVAL` for a bad access, `EAGAIN` (code `ERR_NO_DATA_YET`) when the driver needs time: repeat the call.
   */
  read(offset: number, into: Uint8Array): void;
  /** pwrite of `from` at `offset`, as read(). */
  write(offset: number, from: Uint8Array): void;
  /** `VFIO_DEVICE_RESET`: the device runs afterwards. */
  reset(): void;
}
