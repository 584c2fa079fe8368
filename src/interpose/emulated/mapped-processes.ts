import { hasErrno, ShimError } from '../../error.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import { inodeOfOwn } from '../../sys/file.ts';
import { syscall } from '../../sys/libc.ts';
import { duplicateFd, identityOf, pidOf } from '../../sys/pidfd.ts';
import { holdMemory, readProcessMemoryTo, writeProcessMemoryFrom } from '../../sys/process-memory.ts';
import { programOf } from '../../sys/program.ts';
import type { MappedMemory, MemoryOwner } from '../../vfio/server/mapping.ts';

/**
 * Whether bytes were moved: not if nobody has that memory any more, and not yet if its owner has been asked for it. Who comes again for the same
 * is told what became of it.
 */
export type Moved = boolean | 'awaited';

/** Who reads and writes memory that was mapped for DMA, by the numbers that were kept of whoever has mapped it. */
export interface MappedMemoryAccess {
  read(owner: Owner, address: number, at: number, length: number): Moved;
  write(owner: Owner, address: number, at: number, length: number): Moved;
  /** An owner has been asked and has not answered, whether or not anybody comes again for it. */
  readonly isOwed?: boolean;
  /** Nobody comes again for what is awaited. */
  abandon?(): void;
}

type Owner = MemoryOwner & Pick<MappedMemory, 'file'>;

/** How bytes are moved to memory that is mapped, or from there. */
interface Way {
  readonly process: typeof writeProcessMemoryFrom;
  readonly file: 'pread64' | 'pwrite64';
}

const TO_MEMORY: Way = { process: writeProcessMemoryFrom, file: 'pwrite64' };
const FROM_MEMORY: Way = { process: readProcessMemoryTo, file: 'pread64' };

/** Moves all of some bytes between a file and an address here. Throws `EFAULT` if the file has not so many. */
export function moveOfFile(call: Way['file'], fd: number, offset: number, at: number, length: number): void {
  // SAFETY: the caller's bytes, which live as long as this call
  const moved = syscall('DMA of a file that is mapped', call, fd, at, length, offset);
  if (moved === length) return;
  throw new ShimError('ERR_TARGET', `DMA of a file that is mapped: ${moved} of ${length} bytes at ${offset}`, {
    errno: 'EFAULT',
  });
}

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
  write(owner: Owner, address: number, at: number, length: number): boolean {
    return this.#move(TO_MEMORY, owner, address, at, length);
  }

  /** Reads `length` bytes, at an address there or an offset, to an address here, as write() does. A file that ends before has no such memory. */
  read(owner: Owner, address: number, at: number, length: number): boolean {
    return this.#move(FROM_MEMORY, owner, address, at, length);
  }

  #move(way: Way, owner: Owner, address: number, at: number, length: number): boolean {
    if (owner.file !== undefined && owner.file > 0) return moveFile(way, owner, owner.file - 1, address, at, length);
    const memory = this.#memoryOf(owner);
    if (memory === undefined) return false;
    try {
      way.process(pidOf(owner.process), address, at, length, memory.number);
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
 * Moves bytes of a file by a descriptor of a process, as long as it is the same file there: shared memory is told by its inode, whatever process
 * that is. It is not held, as its memory would stay when all who had it have ended. False if nobody has it there any more.
 */
function moveFile(
  { file: call }: Way,
  { process, program }: MemoryOwner,
  fd: number,
  offset: number,
  at: number,
  length: number,
): boolean {
  using file = fileAt(pidOf(process), fd);
  if (file === undefined || BigInt(inodeOfOwn(file.number)) !== program) return false;
  moveOfFile(call, file.number, offset, at, length);
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
