import { errnoName, errnoNumber } from '../../abi/errno.ts';
import { MAP_SHARED, MAP_SHARED_VALIDATE, MAP_TYPE, PROT_EXEC } from '../../abi/mman.ts';
import { O_CLOEXEC } from '../../abi/fcntl.ts';
import { ShimError } from '../../error.ts';
import type { NotificationReply } from '../../sys/seccomp.ts';
import { inPages, PAGE_SIZE } from '../../sys/libc.ts';
import { TracedThread } from '../../sys/ptrace.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import { ANSWERED, type Call } from './call.ts';

/**
 * mmap of the data section, `at` bytes behind its begin. The target's own mmap names the device's fd at an offset that exists nowhere, so the thread
 * is led, before it returns, through an mmap of the shared memory and a close, and returns with the address.
 *
 * The call is answered with an error first, which frees the thread from seccomp. Should this process die between that and
 * the mmap, the target sees the error, and accesses the data section by pread instead.
 */
export function mapSection(
  call: Call,
  listener: NotificationReply,
  memory: { readonly fd: number; readonly offset: number; readonly size: number },
  at: number,
): number {
  const length = call.count(1);
  const type = call.u32(3) & MAP_TYPE;
  if (length === 0 || at < 0 || at % PAGE_SIZE !== 0 || inPages(length) > inPages(memory.size - at)) {
    throw refuse('EINVAL', `mmap: ${length} bytes, ${at} behind the begin of the data section, are not within it`);
  }
  if (type !== MAP_SHARED && type !== MAP_SHARED_VALIDATE) throw refuse('EINVAL', 'mmap: the data section is shared');
  if ((call.u32(2) & PROT_EXEC) !== 0) throw refuse('EPERM', 'mmap: the data section is not executable');

  using thread = new TracedThread(call.tid);
  thread.seize(); // if that is refused, the target has been given nothing yet
  const inTarget = listener.addFd(call.id, memory.fd, { closeOnExec: O_CLOEXEC });
  listener.respond(call.words, 0, inTarget < 0 ? inTarget : -errnoNumber('ENODEV'));
  if (inTarget < 0) throw refuse(errnoName(-inTarget) ?? 'ENOMEM', 'mmap: the target takes no descriptor');
  thread.waitUntilStopped();
  const args = [call.arg(0), call.arg(1), call.arg(2), call.arg(3), BigInt(inTarget), BigInt(memory.offset + at)];
  const address = thread.inject('mmap', args);
  thread.inject('close', [BigInt(inTarget)]);
  thread.finish(address);
  if (address >= 0n || address < -4095n) return ANSWERED;
  const errno = errnoName(Number(-address)) ?? 'ENOMEM';
  throw new ShimError('ERR_TARGET', `mmap in the target failed with ${errno}`, { errno });
}
