import { iovec } from '../abi/ptrace.ts';
import { ShimError } from '../error.ts';
import { addressOf, trySyscall } from './libc.ts';

const PAGE = 4096;

const HIGH = 2 ** 32;

/** `struct iovec[2]`, local and remote, as 32-bit words: base low and high, length low and high. */
const iov = new Uint32Array((2 * iovec.size) / 4);
const localAt = addressOf(iov);
const remoteAt = localAt + iovec.size;

/**
 * Another process's memory, by the id of one of its threads. All lengths are this program's own; the addresses are the
 * other's, and a bad one is `EFAULT`. No address of a user process needs more than 53 bits.
 * SAFETY: one thread uses these; the vectors are filled just before each call.
 */
function transfer(
  call: 'process_vm_readv' | 'process_vm_writev',
  pid: number,
  address: number,
  at: number,
  length: number,
): number {
  if (!Number.isSafeInteger(address)) return -1;
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

/** Reads exactly `into.length` bytes. Throws `EFAULT`. */
export function readProcessMemory(pid: number, address: number, into: Uint8Array): void {
  if (into.length === 0) return;
  if (transfer('process_vm_readv', pid, address, addressOf(into), into.length) !== into.length) {
    throw fault('read', pid, address, into.length);
  }
}

/** Writes exactly `length` bytes that begin at `at` in this process. Throws `EFAULT`; a part may have been written. */
export function writeProcessMemoryFrom(pid: number, address: number, at: number, length: number): void {
  if (length === 0) return;
  if (transfer('process_vm_writev', pid, address, at, length) !== length) throw fault('write', pid, address, length);
}

export function writeProcessMemory(pid: number, address: number, from: Uint8Array): void {
  writeProcessMemoryFrom(pid, address, addressOf(from), from.length);
}

/** Reads `length` bytes to `at` in this process. Throws `EFAULT`. */
export function readProcessMemoryTo(pid: number, address: number, at: number, length: number): void {
  if (length === 0) return;
  if (transfer('process_vm_readv', pid, address, at, length) !== length) throw fault('read', pid, address, length);
}

/** A zero-terminated string of at most `limit` bytes; `undefined` where there is none. Never reads into a page it need not. */
export function readProcessString(pid: number, address: number, limit: number): string | undefined {
  const bytes = new Uint8Array(limit);
  let length = 0;
  while (length < limit) {
    const at = address + length;
    const piece = Math.min(limit - length, 256, PAGE - (at % PAGE));
    const target = bytes.subarray(length, length + piece);
    if (transfer('process_vm_readv', pid, at, addressOf(target), piece) !== piece) return undefined;
    const end = target.indexOf(0);
    if (end >= 0) return Buffer.from(bytes.subarray(0, length + end)).toString('latin1');
    length += piece;
  }
  return undefined;
}

function fault(action: string, pid: number, address: number, length: number): ShimError {
  return new ShimError(
    'ERR_TARGET',
    `target ${pid}: ${action} of ${length} bytes at 0x${address.toString(16)} failed`,
    {
      errno: 'EFAULT',
    },
  );
}
