import { errnoNumber } from '../abi/errno.ts';
import { AT_FDCWD, O_CLOEXEC, O_RDWR } from '../abi/fcntl.ts';
import { iovec } from '../abi/ptrace.ts';
import { ShimError } from '../error.ts';
import { OwnedFd } from './fd.ts';
import { addressOf, cString, failedWith, PAGE_SIZE, syscall, trySyscall, withAddress } from './libc.ts';

const HIGH = 2 ** 32;
const NO_MEMORY = -errnoNumber('EFAULT');

/** `struct iovec[2]`, local and remote, as 32-bit words: base low and high, length low and high. */
const iov = new Uint32Array((2 * iovec.size) / 4);
const localAt = addressOf(iov);
const remoteAt = localAt + iovec.size;

/**
 * Another process's memory, by the id of one of its threads, or through `held`, its /proc/TID/mem that was opened before. All
 * lengths are this program's own; the addresses are the other's, and a bad one is `EFAULT`. No address of a user process needs
 * more than 53 bits.
 *
 * What is held stays that process's, whoever gets the thread's id; it is slower for large pieces, and reaches what a debugger
 * does, memory included that the process itself may not write.
 * SAFETY: one thread uses the vectors, which live as long as this module and are filled just before each call.
 */
function transfer(
  call: 'process_vm_readv' | 'process_vm_writev',
  pid: number,
  address: number,
  at: number,
  length: number,
  held?: number,
): number {
  if (!Number.isSafeInteger(address)) return NO_MEMORY;
  if (held !== undefined) {
    return trySyscall(call === 'process_vm_readv' ? 'pread64' : 'pwrite64', held, at, length, address);
  }
  iov[0] = at % HIGH;
  iov[1] = at / HIGH;
  iov[2] = length % HIGH;
  iov[3] = length / HIGH;
  iov[4] = address % HIGH;
  iov[5] = address / HIGH;
  iov[6] = iov[2];
  iov[7] = iov[3];
  return trySyscall(call, pid, localAt, 1, remoteAt, 1, 0);
}

/** Opens the memory of a thread's process, which it stays through whatever becomes of the thread's id. */
export function holdMemory(tid: number): OwnedFd {
  const path = cString(`/proc/${tid}/mem`);
  const flags = O_RDWR | O_CLOEXEC;
  return new OwnedFd(withAddress(path, (at) => syscall(`memory of process ${tid}`, 'openat', AT_FDCWD, at, flags)));
}

/** Reads exactly `into.length` bytes. Throws `EFAULT`. */
export function readProcessMemory(pid: number, address: number, into: Uint8Array, held?: number): void {
  if (into.length === 0) return;
  withAddress(into, (at) => readProcessMemoryTo(pid, address, at, into.length, held));
}

export function writeProcessMemory(pid: number, address: number, from: Uint8Array, held?: number): void {
  if (from.length === 0) return;
  withAddress(from, (at) => writeProcessMemoryFrom(pid, address, at, from.length, held));
}

/** Writes exactly `length` bytes that begin at `at` in this process. Throws `EFAULT`; a part may have been written. */
export function writeProcessMemoryFrom(pid: number, address: number, at: number, length: number, held?: number): void {
  if (length === 0) return;
  const written = transfer('process_vm_writev', pid, address, at, length, held);
  if (written !== length) throw fault('write', pid, address, length, written);
}

/** Reads `length` bytes to `at` in this process. Throws `EFAULT`. */
export function readProcessMemoryTo(pid: number, address: number, at: number, length: number, held?: number): void {
  if (length === 0) return;
  const read = transfer('process_vm_readv', pid, address, at, length, held);
  if (read !== length) throw fault('read', pid, address, length, read);
}

/** The most vectors that one call takes (linux/uio.h), and so the most pages that are proved at a time. */
const UIO_MAXIOV = 1024;
// SAFETY: as the vectors above; they are not collected as long as a function names them
const proof = new Uint8Array(UIO_MAXIOV);
const pages = new BigUint64Array(2 * UIO_MAXIOV);
const pagesAt = addressOf(pages);

/**
 * Proves that memory can be written, by writing to each of its pages a byte that is there already. Throws `EFAULT`. What the process
 * itself writes there at this very moment may be lost.
 */
export function proveWritable(pid: number, address: number, length: number, held?: number): void {
  if (length === 0) return;
  const first = address - (address % PAGE_SIZE);
  const count =
    Number.isSafeInteger(address + length) && address >= 0 && Number.isInteger(address)
      ? Math.ceil((address + length - first) / PAGE_SIZE)
      : Infinity;
  if (count > UIO_MAXIOV) throw fault('proof', pid, address, length, NO_MEMORY);
  const proofAt = addressOf(proof); // SAFETY: `proof` lives as long as this module
  for (let n = 0; n < count; n += 1) {
    const at = Math.max(address, first + n * PAGE_SIZE);
    if (held !== undefined) {
      readProcessMemoryTo(pid, at, proofAt, 1, held);
      writeProcessMemoryFrom(pid, at, proofAt, 1, held);
    }
    pages[2 * n] = BigInt(at);
    pages[2 * n + 1] = 1n;
  }
  if (held !== undefined) return;
  iov[0] = proofAt % HIGH;
  iov[1] = proofAt / HIGH;
  iov[2] = count;
  iov[3] = 0;
  for (const call of ['process_vm_readv', 'process_vm_writev'] as const) {
    const proved = trySyscall(call, pid, localAt, 1, pagesAt, count, 0);
    if (proved !== count) throw fault('proof', pid, address, length, proved);
  }
}

/** A zero-terminated string of at most `limit` bytes; `undefined` if there is none. Never reads into a page it need not. */
export function readProcessString(pid: number, address: number, limit: number, held?: number): string | undefined {
  const bytes = new Uint8Array(limit);
  let length = 0;
  while (length < limit) {
    const at = address + length;
    const piece = Math.min(limit - length, 256, PAGE_SIZE - (at % PAGE_SIZE));
    const target = bytes.subarray(length, length + piece);
    // SAFETY: `target` has `piece` bytes
    const read = withAddress(target, (to) => transfer('process_vm_readv', pid, at, to, piece, held));
    if (read !== piece) {
      if (failedWith(read, 'EPERM')) throw fault('read', pid, at, piece, read);
      return undefined;
    }
    const end = target.indexOf(0);
    if (end >= 0) return Buffer.from(bytes.subarray(0, length + end)).toString('latin1');
    length += piece;
  }
  return undefined;
}

/** `EFAULT`; `EPERM` if this process may not reach that one's memory at all. */
function fault(action: string, pid: number, address: number, length: number, result: number): ShimError {
  const errno = failedWith(result, 'EPERM') ? 'EPERM' : 'EFAULT';
  const where = `0x${address.toString(16)}`;
  return new ShimError('ERR_TARGET', `target ${pid}: ${action} of ${length} bytes at ${where} failed`, { errno });
}
