import { constants } from 'node:buffer';
import { F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK } from '../abi/fcntl.ts';
import {
  MADV_POPULATE_WRITE,
  MADV_REMOVE,
  MAP_SHARED,
  MFD_ALLOW_SEALING,
  MFD_CLOEXEC,
  PROT_READ,
  PROT_WRITE,
} from '../abi/mman.ts';
import { ShimError } from '../error.ts';
import { OwnedFd } from './fd.ts';
import { cString, memoryAt, PAGE_SIZE, syscall, trySyscall, withAddress } from './libc.ts';

/**
 * Shared memory of a fixed size: whoever is given the descriptor can neither shrink it, which would fault its other
 * users, nor grow it.
 */
export function createSharedMemory(name: string, size: number): OwnedFd {
  const flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  const fd = new OwnedFd(
    withAddress(cString(name), (label) => syscall(`shared memory ${name}`, 'memfd_create', label, flags)),
  );
  syscall(`shared memory ${name}: ${size} bytes`, 'ftruncate', fd.number, size);
  syscall(`shared memory ${name}: seal`, 'fcntl', fd.number, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  return fd;
}

/** Maps shared memory for reading and writing, for the life of this process. `offset` is page aligned. */
export function mapSharedMemory(
  fd: number,
  size: number,
  offset: number | bigint = 0,
): { bytes: Uint8Array; address: number } {
  if (size > constants.MAX_LENGTH) {
    const limit = constants.MAX_LENGTH;
    throw new ShimError('ERR_ARGUMENT', `map shared memory: ${size} bytes, and Node maps ${limit} at most`, {
      errno: 'ENOMEM',
    });
  }
  const address = syscall('map shared memory', 'mmap', 0, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
  return { bytes: memoryAt(address, size), address };
}

/**
 * The same for as long as `use` takes. SAFETY: `use` keeps nothing of the bytes, which are unmapped when it returns.
 */
export function withSharedMemory(
  fd: number,
  size: number,
  offset: number | bigint,
  use: (bytes: Uint8Array) => void,
): void {
  const { bytes, address } = mapSharedMemory(fd, size, offset);
  try {
    use(bytes);
  } finally {
    syscall('unmap shared memory', 'munmap', address, size);
  }
}

/**
 * Has the pages of a mapping made now, not when they are first used: by one call where the kernel has it (Linux 5.14), and by writing to each
 * what is in it, as a hypervisor that has page tables of its own makes those no sooner. SAFETY: nobody else writes there meanwhile.
 */
export function populate(address: number, size: number): void {
  trySyscall('madvise', address, size, MADV_POPULATE_WRITE);
  const bytes = memoryAt(address, size);
  for (let at = 0; at < size; at += PAGE_SIZE) bytes[at] = bytes[at] ?? 0;
}

/** Gives back the pages of a mapping of shared memory: whoever has it mapped finds zeros there. The mapping itself stays. */
export function vacate(address: number, size: number): void {
  trySyscall('madvise', address, size, MADV_REMOVE);
}

/** Shared memory that is read and written in pieces, without mapping it: it may be larger than Node maps. */
export class SharedStore {
  readonly size: number;
  readonly #fd: number;
  readonly #offset: number;

  /** `size` bytes of a file of shared memory, from `offset` on; the descriptor stays the caller's. */
  constructor(fd: number, size: number, offset = 0) {
    this.#fd = fd;
    this.size = size;
    this.#offset = offset;
  }

  read(at: number, into: Uint8Array): void {
    this.#access('pread64', at, into);
  }

  write(at: number, from: Uint8Array): void {
    this.#access('pwrite64', at, from);
  }

  #access(call: 'pread64' | 'pwrite64', at: number, bytes: Uint8Array): void {
    if (at < 0 || at + bytes.length > this.size) {
      throw new RangeError(`shared memory: ${bytes.length} bytes at ${at} of ${this.size}`);
    }
    for (let moved = 0; moved < bytes.length;) {
      const piece = bytes.subarray(moved);
      const length = withAddress(piece, (address) =>
        syscall('shared memory', call, this.#fd, address, piece.length, this.#offset + at + moved),
      );
      if (length === 0) throw new RangeError(`shared memory: its file ends before ${this.size}`);
      moved += length;
    }
  }
}
