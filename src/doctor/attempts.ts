import { BPF_K, BPF_RET, sock_filter } from '../abi/bpf.ts';
import { iovec, PTRACE_SEIZE } from '../abi/ptrace.ts';
import { SECCOMP_RET_ALLOW, seccomp_notif } from '../abi/seccomp.ts';
import { errnoNameOrEio, ShimError } from '../error.ts';
import { sharedFiles } from '../interpose/memory/inherited.ts';
import { OwnedFd } from '../sys/fd.ts';
import { addressOf, trySyscall, withAddress } from '../sys/libc.ts';
import { createSharedMemory } from '../sys/memory.ts';
import { installFilter, Listener } from '../sys/seccomp.ts';
import type { AttemptName, Outcome } from './outcome.ts';

/** The system calls that are tried. A test hands in others. */
export interface AttemptCalls {
  readonly trySyscall: typeof trySyscall;
  readonly createSharedMemory: typeof createSharedMemory;
  readonly installFilter: typeof installFilter;
  /** Whether a listener takes SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP. */
  wakesOnThisCpu(listener: number): boolean;
}

export const systemCalls: AttemptCalls = {
  trySyscall,
  createSharedMemory,
  installFilter,
  wakesOnThisCpu: (listener) => new Listener(listener, new Uint8Array(seccomp_notif.size)).wakeOnThisCpu(),
};

/** A filter that lets everything pass: one that traps would stop this process for want of a supervisor. */
const ALLOW_ALL = sock_filter.encode({ code: BPF_RET | BPF_K, jt: 0, jf: 0, k: SECCOMP_RET_ALLOW });

/**
 * Tries, each once and as `run` would, what a supervisor does: on this process, and on a child of it. After `seccomp` this process has a
 * filter for good.
 */
export class Attempts {
  readonly #calls: AttemptCalls;
  /** A process that this one has started, and that waits. */
  readonly #peer: number;
  #listener: OwnedFd | undefined;

  constructor(peer: number, calls: AttemptCalls = systemCalls) {
    this.#peer = peer;
    this.#calls = calls;
  }

  try(name: Exclude<AttemptName, 'koffi'>): Outcome {
    try {
      this.#steps[name]();
      return { name };
    } catch (error) {
      if (!(error instanceof ShimError)) throw error;
      return { name, message: error.message, ...(error.errno !== undefined && { errno: error.errno }) };
    }
  }

  readonly #steps: Readonly<Record<Exclude<AttemptName, 'koffi'>, () => void>> = {
    memfd: () => {
      for (const { name, size } of sharedFiles({ devices: [] }, 4096))
        this.#calls.createSharedMemory(name, size).close();
    },
    pidfd_open: () => this.#pidfd().close(),
    pidfd_getfd: () => {
      using pidfd = this.#pidfd();
      new OwnedFd(this.#syscall('pidfd_getfd', pidfd.number, 0, 0)).close();
    },
    process_vm_readv: () => this.#transfer('process_vm_readv'),
    process_vm_writev: () => this.#transfer('process_vm_writev'),
    ptrace: () => {
      this.#syscall('ptrace', PTRACE_SEIZE, this.#peer, 0, 0); // whoever ends this process ends the tracing
    },
    seccomp: () => {
      this.#listener = this.#calls.installFilter(ALLOW_ALL);
    },
    wake: () => {
      if (this.#listener === undefined) throw new ShimError('ERR_KERNEL_FEATURE', 'there is no listener to try it on');
      if (this.#calls.wakesOnThisCpu(this.#listener.number)) return;
      throw new ShimError('ERR_KERNEL_FEATURE', 'SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP is refused', { errno: 'EINVAL' });
    },
  };

  #pidfd(): OwnedFd {
    return new OwnedFd(this.#syscall('pidfd_open', this.#peer, 0));
  }

  /** Copies a byte of this process onto another. */
  #transfer(name: 'process_vm_readv' | 'process_vm_writev'): void {
    const bytes = new Uint8Array(2);
    // SAFETY: withAddress() keeps the bytes, to which both vectors point
    const at = addressOf(bytes);
    const local = iovec.encode({ iov_base: BigInt(at), iov_len: 1n });
    const remote = iovec.encode({ iov_base: BigInt(at + 1), iov_len: 1n });
    withAddress(local, (from) => withAddress(remote, (to) => this.#syscall(name, process.pid, from, 1, to, 1, 0)), [
      bytes,
    ]);
  }

  #syscall(...[name, ...args]: Parameters<typeof trySyscall>): number {
    const result = this.#calls.trySyscall(name, ...args);
    if (result >= 0) return result;
    const errno = errnoNameOrEio(-result);
    throw new ShimError('ERR_SYSCALL', `fails with ${errno}`, { errno, syscall: name });
  }
}
