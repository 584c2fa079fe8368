import type { SyscallName } from '../../abi/syscalls.ts';
import { errnoNameOrEio, ShimError } from '../../error.ts';
import { OwnedFd } from '../../sys/fd.ts';
import { trySyscall, withAddress } from '../../sys/libc.ts';
import { readProcessMemoryTo, writeProcessMemoryFrom } from '../../sys/process-memory.ts';

/**
 * Throws `ERR_KERNEL_FEATURE` if a call that serving cannot do without is missing from the kernel, or is refused by whatever this
 * process runs in. It is tried on this process itself, which nothing else forbids.
 */
export function checkCalls(): void {
  const { pid } = process;
  using pidfd = new OwnedFd(needed('pidfd_open', trySyscall('pidfd_open', pid, 0)));
  new OwnedFd(needed('pidfd_getfd', trySyscall('pidfd_getfd', pidfd.number, pidfd.number, 0))).close();
  const transfers = { process_vm_readv: readProcessMemoryTo, process_vm_writev: writeProcessMemoryFrom };
  for (const [name, transfer] of Object.entries(transfers)) {
    try {
      // SAFETY: a byte is copied onto the other
      withAddress(new Uint8Array(2), (at) => transfer(pid, at, at + 1, 1));
    } catch {
      throw missing(name, 'EPERM');
    }
  }
}

function needed(name: SyscallName, result: number): number {
  if (result >= 0) return result;
  throw missing(name, errnoNameOrEio(-result));
}

function missing(name: string, errno: NonNullable<ShimError['errno']>): ShimError {
  const why =
    errno === 'ENOSYS'
      ? 'the kernel lacks it'
      : 'a sandbox refuses it, as container engines do without CAP_SYS_PTRACE (--cap-add SYS_PTRACE)';
  return new ShimError('ERR_KERNEL_FEATURE', `run needs ${name}, which fails with ${errno} here: ${why}`, {
    errno,
    syscall: name,
  });
}
