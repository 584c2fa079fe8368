import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE } from '../../src/abi/mman.ts';
import { seccomp_notif } from '../../src/abi/seccomp.ts';
import { Call } from '../../src/interpose/trap/call.ts';
import { arch, memoryAt, PAGE_SIZE, syscall } from '../../src/sys/libc.ts';
import { UserMemory } from './user-memory.ts';

/** Memory of this process, with a page behind it that cannot be accessed; bytes that are to be at its very end can be. */
export class GuardedMemory extends UserMemory {
  constructor(pages = 4) {
    const size = pages * PAGE_SIZE;
    const flags = MAP_PRIVATE | MAP_ANONYMOUS;
    const address = syscall('memory', 'mmap', 0, size + PAGE_SIZE, PROT_READ | PROT_WRITE, flags, -1, 0);
    syscall('guard', 'mprotect', address + size, PAGE_SIZE, PROT_NONE);
    super(memoryAt(address, size), address);
  }
}

/** A trapped call of this process itself. */
export function selfCall(nr: number, args: readonly (number | bigint)[], id = 1n): Call {
  const [args0 = 0n, args1 = 0n, args2 = 0n, args3 = 0n, args4 = 0n, args5 = 0n] = args.map((value) =>
    BigInt.asUintN(64, BigInt(value)),
  );
  return new Call(seccomp_notif.encode({ id, pid: process.pid, nr, args0, args1, args2, args3, args4, args5 }));
}

/** An ioctl of this process, with a number or an address as its argument. */
export function selfIoctl(command: number, argument: number | bigint = 0, id = 1n): Call {
  return selfCall(arch.syscalls.ioctl, [3, command, argument], id);
}
