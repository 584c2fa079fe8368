import { createRequire } from 'node:module';
import koffi from 'koffi';
import { errnoNumber, type ErrnoName } from '../abi/errno.ts';
import { ARCH, type Arch } from '../abi/arch.ts';
import { AT_PAGESZ } from '../abi/auxvec.ts';
import type { SyscallName } from '../abi/syscalls.ts';
import { errnoNameOrEio, ShimError } from '../error.ts';

/*
 * All system calls go through libc's syscall(2) with fixed integer arguments: pointers are passed as addresses of memory
 * that the caller keeps alive. Results and errors are the kernel's.
 */

function findArch(): Arch {
  const arch = process.arch === 'x64' || process.arch === 'arm64' ? ARCH[process.arch] : undefined;
  if (process.platform === 'linux' && arch !== undefined) return arch;
  throw new ShimError(
    'ERR_KERNEL_FEATURE',
    `vfio-shim run needs Linux on x86-64 or aarch64, this is ${process.platform} on ${process.arch}`,
  );
}

/** The path of koffi's shared library, which this process has loaded. */
export function koffiLibrary(): string {
  const { cache } = createRequire('/'); // from wherever: all modules are in one
  const found = Object.keys(cache).find((name) => name.endsWith('/koffi.node'));
  if (found === undefined) throw new Error('koffi: its shared library is not among the loaded modules');
  return found;
}

/** The architecture this process runs on. */
export const arch: Arch = findArch();
const numbers = arch.syscalls;

type Argument = number | bigint;
type RawSyscall = (
  nr: number,
  a: Argument,
  b: Argument,
  c: Argument,
  d: Argument,
  e: Argument,
  f: Argument,
) => number | bigint;

const libc = koffi.load('libc.so.6');
// SAFETY: seven integer arguments, none a pointer to JavaScript memory that could be freed during the call.
const raw = libc.func(
  'int64_t syscall(int64_t nr, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f)',
) as unknown as RawSyscall;

/** A system call; a failure is the negative errno, as the kernel returns it. */
export function trySyscall(
  name: SyscallName,
  a: Argument = 0,
  b: Argument = 0,
  c: Argument = 0,
  d: Argument = 0,
  e: Argument = 0,
  f: Argument = 0,
): number {
  const result = raw(numbers[name], a, b, c, d, e, f);
  return result === -1 ? -koffi.errno() : Number(result);
}

type RawIoctl = (fd: number, request: number, argument: number) => number;
// SAFETY: ioctl(2) takes its third argument as a register on both architectures, variadic or not.
const rawIoctl = libc.func('int ioctl(int fd, uint64_t request, uint64_t argument)') as unknown as RawIoctl;

/** ioctl with an address; a failure is the negative errno. */
export function tryIoctl(fd: number, request: number, address: number): number {
  const result = rawIoctl(fd, request, address);
  return result === -1 ? -koffi.errno() : result;
}

type RawSigaction = (signal: number, action: number, former: number) => number;
// SAFETY: sigaction(3) copies what it is given; the address is that of memory of the caller's.
const rawSigaction = libc.func(
  'int sigaction(int signal, uint64_t action, uint64_t former)',
) as unknown as RawSigaction;

/** sigaction of libc, which knows how a handler returns; a failure is the negative errno. */
export function trySigaction(signal: number, address: number): number {
  return rawSigaction(signal, address, 0) === -1 ? -koffi.errno() : 0;
}

type RawGetauxval = (entry: number) => number | bigint;
// SAFETY: a number for a number.
const rawGetauxval = libc.func('uint64_t getauxval(uint64_t entry)') as unknown as RawGetauxval;

/** Bytes of a page of memory: the kernel's configuration says so on aarch64. It maps nothing smaller, and dirty pages are of this size. */
export const PAGE_SIZE = Number(rawGetauxval(AT_PAGESZ));

/** Bytes of the pages that so many bytes take. */
export function inPages(bytes: number): number {
  return Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;
}

/** The address of a function of libc. */
export function functionAddress(name: string): bigint {
  return koffi.address(libc.symbol(name, 'char'));
}

/** A system call; throws `ERR_SYSCALL` with its errno. `doing` says in words what it was for. */
export function syscall(doing: string, name: SyscallName, ...args: Argument[]): number {
  const result = trySyscall(name, ...(args as [Argument?, Argument?, Argument?, Argument?, Argument?, Argument?]));
  if (result < 0 && result > -4096) throw syscallError(doing, name, -result);
  return result;
}

export function syscallError(doing: string, name: string, number: number): ShimError {
  const errno: ErrnoName = errnoNameOrEio(number);
  return new ShimError('ERR_SYSCALL', `${doing}: ${name} failed with ${errno}`, { errno, syscall: name });
}

/** True if a failed call's result is this errno. */
export function failedWith(result: number, errno: ErrnoName): boolean {
  return result === -errnoNumber(errno);
}

/**
 * The address of the first byte of a buffer. SAFETY: valid while something references the buffer, which an address does not;
 * array buffers do not move. For a temporary, use withAddress().
 */
export function addressOf(bytes: ArrayBufferView): number {
  return Number(koffi.address(bytes));
}

/** What system calls are using, the innermost last. */
const inUse: unknown[] = [];

/**
 * Calls with the address of a temporary. SAFETY: `inUse` references the bytes, and those that they point to, until the call
 * returns (as Go's runtime.KeepAlive does): a local variable may be collected after its last mention.
 */
export function withAddress<Result>(
  bytes: ArrayBufferView,
  call: (at: number) => Result,
  pointedTo: readonly ArrayBufferView[] = [],
): Result {
  inUse.push(bytes, pointedTo);
  try {
    return call(addressOf(bytes));
  } finally {
    inUse.length -= 2;
  }
}

/** Memory that the kernel mapped, as bytes. SAFETY: the mapping must outlive every use of them. */
export function memoryAt(address: number, length: number): Uint8Array {
  return new Uint8Array(koffi.view(BigInt(address), length));
}

/** A zero-terminated string for the kernel. */
export function cString(text: string): Uint8Array {
  return Buffer.from(`${text}\0`);
}
