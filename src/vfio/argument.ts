/**
 * The struct of a request, wherever it lies: in the memory of a process whose ioctl was trapped, in a message, in a test's bytes.
 * Who answers a request reads it from here and writes the answer back to the same place, as a driver does with the `arg` of its
 * ioctl (copy_from_user, copy_to_user).
 */
export interface Argument {
  /** The first `size` bytes. Throws `EFAULT`. */
  read(size: number): Uint8Array;
  /** Writes `bytes`, `skip` bytes in. Throws `EFAULT`. */
  write(bytes: Uint8Array, skip?: number): void;
}

/** The argument of a request whose struct may point elsewhere. */
export interface PointingArgument extends Argument {
  /** Reads from an address that the struct has named. Throws `EFAULT`. */
  readAt(address: bigint, size: number): Uint8Array;
  /** Writes to an address that the struct has named. Throws `EFAULT`. */
  writeAt(address: bigint, bytes: Uint8Array): void;
}

/** The argument of a request to a container, which may also be a number. */
export interface ContainerArgument extends PointingArgument {
  /** Names the request. A process that takes over serves a request once more, under the same id, and finds what it has done. */
  readonly id: bigint;
  /** The argument itself, for requests that take a number; `Infinity` if it is too large for one. */
  readonly value: number;
}
