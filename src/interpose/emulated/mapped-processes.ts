import type { OwnedFd } from '../../sys/fd.ts';
import { identityOf, pidOf } from '../../sys/pidfd.ts';
import { holdMemory, writeProcessMemoryFrom } from '../../sys/process-memory.ts';

/** Who writes to memory that was mapped for DMA, by the number that was kept of whoever has mapped it. */
export type MappedMemoryWriter = Pick<MappedProcesses, 'write'>;

/**
 * The memory of processes that have mapped some of it for DMA, by the numbers that `identityOf()` gives. It is held open, so that
 * it stays that process's whoever gets its id later; what is found out when it is opened is checked against the number.
 */
export class MappedProcesses {
  /** Of each process, its memory; `undefined` if it is gone. */
  readonly #held = new Map<bigint, OwnedFd | undefined>();

  /**
   * Writes `length` bytes that begin at an address here. False if the process is gone. Throws `EFAULT` if it has no such memory, and
   * what opening it throws.
   */
  write(process: bigint, address: number, at: number, length: number): boolean {
    const memory = this.#memoryOf(process);
    if (memory === undefined) return false;
    try {
      writeProcessMemoryFrom(pidOf(process), address, at, length, memory.number);
      return true;
    } catch (error) {
      if (identityOf(pidOf(process)) === process) throw error;
      memory.close();
      this.#held.set(process, undefined);
      return false;
    }
  }

  #memoryOf(process: bigint): OwnedFd | undefined {
    if (this.#held.has(process)) return this.#held.get(process);
    const memory = identityOf(pidOf(process)) === process ? holdMemory(pidOf(process)) : undefined;
    // it may have gone meanwhile, and another got its id: then this is not its number
    const isTheirs = memory !== undefined && identityOf(pidOf(process)) === process;
    if (!isTheirs) memory?.close();
    this.#held.set(process, isTheirs ? memory : undefined);
    return isTheirs ? memory : undefined;
  }
}
