import { errnoName, errnoNumber } from '../../abi/errno.ts';
import { MAP_SHARED, MAP_SHARED_VALIDATE, MAP_TYPE, PROT_EXEC } from '../../abi/mman.ts';
import { O_CLOEXEC } from '../../abi/fcntl.ts';
import { ShimError } from '../../error.ts';
import type { NotificationReply } from '../../sys/seccomp.ts';
import { inodeOf, inodeOfOwn } from '../../sys/file.ts';
import { inPages, PAGE_SIZE } from '../../sys/libc.ts';
import { identityOf } from '../../sys/pidfd.ts';
import { TracedThread } from '../../sys/ptrace.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import { ANSWERED, type Call } from './call.ts';

/** The descriptor of the shared memory that a process has been given, by the process's identity. */
const given = new Map<bigint, number>();

/** Of so many processes that is remembered. */
const MAX_GIVEN = 64;

/**
 * mmap of the data section, `at` bytes behind its begin. The target's own mmap names the device's fd at an offset that exists nowhere, so the thread
 * is led, before it returns, through an mmap of the shared memory, and returns with the address. For that its process has a descriptor of
 * the memory, one from its first such mmap on: to close it would be another call of the thread's, with another result.
 *
 * The call is answered with an error first, which frees the thread from seccomp. Should this process die between that and
 * the mmap, the target sees the error, and accesses the data section by pread instead; later the thread makes the mmap by itself. So it
 * does if a signal comes in between, once it has taken that.
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

  const caller = identityOf(call.tid);
  if (caller === undefined) throw refuse('EINTR', 'mmap: the caller is gone');
  const before = givenTo(caller, call.tid, memory.fd);
  using thread = new TracedThread(call.tid);
  thread.seize(); // if that is refused, the target has been given nothing yet
  const fd = before ?? listener.addFd(call.id, memory.fd, { closeOnExec: O_CLOEXEC });
  listener.respond(call.words, 0, fd < 0 ? fd : -errnoNumber('ENODEV'));
  if (fd < 0) throw refuse(errnoName(-fd) ?? 'ENOMEM', 'mmap: the target takes no descriptor');
  remember(caller, fd);
  const args = [call.arg(0), call.arg(1), call.arg(2), call.arg(3), BigInt(fd), BigInt(memory.offset + at)];
  let address: bigint;
  try {
    thread.waitUntilStopped();
    address = thread.inject('mmap', args);
  } catch (error) {
    if (!thread.isInterrupted) throw error;
    thread.leaveTo('mmap', args);
    return ANSWERED;
  }
  thread.finish(address);
  if (address >= 0n || address < -4095n) return ANSWERED;
  const errno = errnoName(Number(-address)) ?? 'ENOMEM';
  throw new ShimError('ERR_TARGET', `mmap in the target failed with ${errno}`, { errno });
}

/** The descriptor that a process has been given, if it is still what it was. */
function givenTo(caller: bigint, tid: number, memory: number): number | undefined {
  const fd = given.get(caller);
  given.delete(caller);
  return fd !== undefined && inodeOf(tid, fd) === inodeOfOwn(memory) ? fd : undefined;
}

function remember(caller: bigint, fd: number): void {
  const [oldest] = given.keys();
  if (oldest !== undefined && given.size >= MAX_GIVEN) given.delete(oldest);
  given.set(caller, fd);
}
