import type { OwnedFd } from '../../sys/fd.ts';
import { identityOf, pidOf } from '../../sys/pidfd.ts';
import { holdMemory, writeProcessMemoryFrom } from '../../sys/process-memory.ts';
import { programOf } from '../../sys/program.ts';
import type { MemoryOwner } from '../../vfio/server/dma-mappings.ts';

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
   * Writes `length` bytes that begin at an address here. False if the process is gone, or runs another program. Throws `EFAULT` if it has
   * no such memory, and what opening it throws.
   */
  write(owner: MemoryOwner, address: number, at: number, length: number): boolean {
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

function isThere({ process, program }: MemoryOwner, held?: OwnedFd): boolean {
  const pid = pidOf(process);
  return identityOf(pid) === process && (programOf(pid, held) ?? 0n) === program;
}

function keyOf({ process, program }: MemoryOwner): bigint {
  return (process << 64n) | program;
}
