import { hasErrno } from '../../error.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import { inodeOfOwn } from '../../sys/file.ts';
import { syscall } from '../../sys/libc.ts';
import { duplicateFd, identityOf, pidOf } from '../../sys/pidfd.ts';
import { holdMemory, writeProcessMemoryFrom } from '../../sys/process-memory.ts';
import { programOf } from '../../sys/program.ts';
import type { MappedMemory, MemoryOwner } from '../../vfio/server/mapping.ts';

/** Who writes to memory that was mapped for DMA, by the numbers that were kept of whoever has mapped it. */
export type MappedMemoryWriter = Pick<MappedProcesses, 'write'>;

/** The numbers by which the memory of a thread's process is found later. */
export function ownerOf(tid: number): MemoryOwner {
  return { process: identityOf(tid) ?? 0n, program: programOf(tid) ?? 0n };
}

/**
 * The memory of processes that have mapped some of it for DMA, by the numbers that `ownerOf()` gives. It is held open, so that it stays
 * that program's, whoever gets the process's id later and whatever the process runs next; what is found out when it is opened is checked
 * against the numbers.
 */
export class MappedProcesses {
  /** Of each program, its memory; `undefined` if it is gone. */
  readonly #held = new Map<bigint, OwnedFd | undefined>();

  /**
   * Writes `length` bytes that begin at an address here, to an address there, or an offset if it is a file's. False if the process is gone, or runs another program. Throws `EFAULT` if it has
   * no such memory, and what opening it throws.
   */
  write(owner: MemoryOwner & Pick<MappedMemory, 'file'>, address: number, at: number, length: number): boolean {
    if (owner.file !== undefined && owner.file > 0) return writeFile(owner, owner.file - 1, address, at, length);
    const memory = this.#memoryOf(owner);
    if (memory === undefined) return false;
    try {
      writeProcessMemoryFrom(pidOf(owner.process), address, at, length, memory.number);
      return true;
    } catch (error) {
      if (isThere(owner)) throw error;
      memory.close();
      this.#held.set(keyOf(owner), undefined);
      return false;
    }
  }

  #memoryOf(owner: MemoryOwner): OwnedFd | undefined {
    const key = keyOf(owner);
    if (this.#held.has(key)) return this.#held.get(key);
    const memory = isThere(owner) ? holdMemory(pidOf(owner.process)) : undefined;
    // it may have gone meanwhile, and another got its id, or begun another program: then these are not its numbers
    const isTheirs = memory !== undefined && isThere(owner, memory);
    if (!isTheirs) memory?.close();
    this.#held.set(key, isTheirs ? memory : undefined);
    return isTheirs ? memory : undefined;
  }
}

/**
 * Writes to a file by a descriptor of a process, as long as it is the same file there: shared memory is told by its inode, whatever process
 * that is. It is not held, as its memory would stay when all who had it have ended. False if nobody has it there any more.
 */
function writeFile({ process, program }: MemoryOwner, fd: number, offset: number, at: number, length: number): boolean {
  using file = fileAt(pidOf(process), fd);
  if (file === undefined || BigInt(inodeOfOwn(file.number)) !== program) return false;
  // SAFETY: the caller's bytes, which live as long as this call
  syscall('DMA to a file that is mapped', 'pwrite64', file.number, at, length, offset);
  return true;
}

function fileAt(pid: number, fd: number): OwnedFd | undefined {
  try {
    return duplicateFd(pid, fd);
  } catch (error) {
    if (hasErrno(error, 'ESRCH')) return undefined;
    throw error;
  }
}

function isThere({ process, program }: MemoryOwner, held?: OwnedFd): boolean {
  const pid = pidOf(process);
  return identityOf(pid) === process && (programOf(pid, held) ?? 0n) === program;
}

function keyOf({ process, program }: MemoryOwner): bigint {
  return (process << 64n) | program;
}
