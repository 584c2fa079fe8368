import {
  iovec,
  NT_ARM_SYSTEM_CALL,
  NT_PRSTATUS,
  PTRACE_DETACH,
  PTRACE_EVENT_STOP,
  PTRACE_GETREGSET,
  PTRACE_INTERRUPT,
  PTRACE_O_TRACESYSGOOD,
  PTRACE_SEIZE,
  PTRACE_SETREGSET,
  PTRACE_SYSCALL,
} from '../abi/ptrace.ts';
import { __WALL, WNOHANG } from '../abi/prctl.ts';
import type { SyscallName } from '../abi/syscalls.ts';
import { ShimError } from '../error.ts';
import { constants } from 'node:os';
import { addressOf, arch, syscallError, trySyscall, withAddress } from './libc.ts';
import { readProcessMemory } from './process-memory.ts';

/** A stop at the entry or exit of a system call, as PTRACE_O_TRACESYSGOOD marks it. */
const SYSCALL_STOP = constants.signals.SIGTRAP | 0x80;
/** A thread that cannot stop (a frozen one) must not stop us for longer, in milliseconds. */
const PATIENCE = 2000;

/**
 * One thread of another process under ptrace, from seize() until it is let go, which leaving the scope of `using` makes
 * certain: a thread that stays traced stops at its next signal for good, and one that dies traced cannot be waited for by
 * its parent. All calls come from one thread of this process, which must not be the target's parent's event loop: the
 * parent would take the stops for its own.
 *
 * Whenever this process is killed, the thread goes on by itself, with its own signals and its own signal mask. So signals are not kept
 * away: one that is to be delivered before the thread has made a call stops it, and ends what is done to it (`isInterrupted`).
 *
 * SAFETY: it references the memory whose addresses ptrace and wait4 get, and `using` references it to the end.
 */
export class TracedThread implements Disposable {
  readonly #tid: number;
  readonly #registers = new Uint8Array(arch.registers.size);
  readonly #vector = iovec.encode({
    iov_base: BigInt(addressOf(this.#registers)),
    iov_len: BigInt(this.#registers.length),
  });
  readonly #status = new Int32Array(1);
  /** The registers that the thread stopped with, from waitUntilStopped() on: it goes on with them. */
  #stopped: Uint8Array | undefined;
  /** Bytes from where the thread would go on with them to behind the instruction that made its system call. */
  #rewound = 0;
  #isTraced = false;
  /** A signal that stopped the thread before it came to the stop that was asked for: it gets it when it is let go. */
  #signal = 0;

  constructor(tid: number) {
    this.#tid = tid;
  }

  /** Begins to trace the thread and asks it to stop; it goes on until it returns from its system call. */
  seize(): void {
    this.#request('seize', PTRACE_SEIZE, 0, PTRACE_O_TRACESYSGOOD);
    this.#isTraced = true;
    this.#request('interrupt', PTRACE_INTERRUPT, 0, 0);
  }

  /** Waits for the stop after seize(). Throws `ESRCH` if the thread ended, `EINTR` if a signal came before. */
  waitUntilStopped(): void {
    const status = this.#wait();
    this.#request('get registers', PTRACE_GETREGSET, NT_PRSTATUS, addressOf(this.#vector));
    this.#stopped = this.#registers.slice();
    this.#rewound = this.#rewoundBy();
    if (eventOf(status) !== PTRACE_EVENT_STOP) throw this.#interrupted(signalOf(status));
  }

  /**
   * aarch64 sets a thread back before a stop, if its system call is to be restarted (arch/arm64/kernel/signal.c, do_signal, Linux 6.12);
   * x86-64 behind it, as the registers that it stops with then are.
   */
  #rewoundBy(): number {
    if (arch.originalNumberOffset !== undefined) return 0;
    const instruction = new Uint8Array(arch.syscallInstruction.length);
    readProcessMemory(this.#tid, Number(arch.registers.decode(this.#registers).pc), instruction);
    return arch.syscallInstruction.every((byte, n) => instruction[n] === byte) ? instruction.length : 0;
  }

  /** A signal waits for the thread, which does nothing more for us. */
  get isInterrupted(): boolean {
    return this.#signal !== 0;
  }

  #interrupted(signal: number): ShimError {
    this.#signal = signal;
    return new ShimError('ERR_TARGET', `thread ${this.#tid}: signal ${signal} came before`, { errno: 'EINTR' });
  }

  /**
   * Lets the stopped thread make a system call of our choosing, from the instruction that it has just passed. Throws `EINTR` if a signal
   * came before it has made it.
   */
  inject(name: SyscallName, args: readonly bigint[]): bigint {
    this.#prepare(name, args);
    this.#step(); // to its entry
    this.#step(); // to its exit
    this.#request('get registers', PTRACE_GETREGSET, NT_PRSTATUS, addressOf(this.#vector));
    return BigInt.asIntN(64, arch.registers.decode(this.#registers).result);
  }

  /**
   * Ends tracing: the thread takes the signal that waits for it, and then makes this system call itself, from the instruction that it
   * has just passed. Unlike after inject(), the registers of the arguments stay as they are set for that.
   */
  leaveTo(name: SyscallName, args: readonly bigint[]): void {
    this.#prepare(name, args);
    this.#detach();
  }

  /** The thread is to make a system call next, from the instruction that it has just passed. */
  #prepare(name: SyscallName, args: readonly bigint[]): void {
    const mine = this.#whereStopped().slice();
    const view = arch.registers.view(mine);
    view.pc -= BigInt(arch.syscallInstruction.length - this.#rewound);
    args.forEach((value, n) => (view[`arg${n as 0 | 1 | 2 | 3 | 4 | 5}`] = value));
    view.number = BigInt(arch.syscalls[name]);
    if (arch.originalNumberOffset !== undefined) {
      // -1: no system call is to be restarted
      new DataView(mine.buffer).setBigInt64(arch.originalNumberOffset, -1n, true);
    }
    this.#setRegisters(mine);
    if (arch.originalNumberOffset === undefined) this.#forgetSystemCall();
  }

  /** Ends tracing: the thread returns from the system call that it stopped in, with this result. */
  finish(result: bigint): void {
    const view = arch.registers.view(this.#whereStopped());
    view.pc += BigInt(this.#rewound);
    view.result = BigInt.asUintN(64, result);
    this.#letGo();
  }

  /** Ends tracing, whatever has happened: the thread goes on where it was stopped, or is reaped. */
  [Symbol.dispose](): void {
    const deadline = performance.now() + PATIENCE;
    while (this.#isTraced) {
      if (this.#letGo()) return;
      // it runs, or has been killed: either shows soon
      const result = this.#poll();
      if (result < 0 || (result === this.#tid && !isStop(this.#status[0] ?? 0))) this.#isTraced = false;
      else if (performance.now() > deadline) process.exit(1); // only the end of the tracer lets go of a thread that runs
    }
  }

  /** Detaches from a thread that is stopped. */
  #letGo(): boolean {
    if (this.#stopped !== undefined) {
      this.#registers.set(this.#stopped);
      trySyscall('ptrace', PTRACE_SETREGSET, this.#tid, NT_PRSTATUS, addressOf(this.#vector));
    }
    return this.#detach();
  }

  #detach(): boolean {
    if (trySyscall('ptrace', PTRACE_DETACH, this.#tid, 0, this.#signal) < 0) return false;
    this.#isTraced = false;
    return true;
  }

  #whereStopped(): Uint8Array {
    if (this.#stopped === undefined) throw new Error(`thread ${this.#tid} is not stopped`);
    return this.#stopped;
  }

  #setRegisters(registers: Uint8Array): void {
    this.#registers.set(registers);
    this.#request('set registers', PTRACE_SETREGSET, NT_PRSTATUS, addressOf(this.#vector));
  }

  /**
   * Runs to the next entry into or exit from a system call. SIGSTOP comes as a signal, then as a stop of the whole process. The thread
   * goes on all the same, and the kernel stops it again when it is let go.
   */
  #step(): void {
    let signal = 0;
    for (;;) {
      this.#request('step', PTRACE_SYSCALL, 0, signal);
      const status = this.#wait();
      if (eventOf(status) === 0 && signalOf(status) === SYSCALL_STOP) return;
      signal = eventOf(status) === 0 ? signalOf(status) : 0;
      if (signal !== 0 && signal !== constants.signals.SIGSTOP) throw this.#interrupted(signal);
    }
  }

  /** aarch64 keeps the number of the call to be restarted in a register set of its own. */
  #forgetSystemCall(): void {
    const none = new Int32Array([-1]);
    const vector = iovec.encode({ iov_base: BigInt(addressOf(none)), iov_len: 4n }); // SAFETY: withAddress() keeps `none`
    const forget = (at: number): void =>
      this.#request('forget the system call', PTRACE_SETREGSET, NT_ARM_SYSTEM_CALL, at);
    withAddress(vector, forget, [none]);
  }

  /** Waits for the next stop. */
  #wait(): number {
    const deadline = performance.now() + PATIENCE;
    while (performance.now() < deadline) {
      const result = this.#poll();
      if (result === this.#tid) {
        const status = this.#status[0] ?? 0;
        if (isStop(status)) return status;
        this.#isTraced = false;
        throw new ShimError('ERR_TARGET', `thread ${this.#tid} ended`, { errno: 'ESRCH' });
      }
      if (result < 0) throw syscallError(`thread ${this.#tid}: wait`, 'wait4', -result);
    }
    throw new ShimError('ERR_TARGET', `thread ${this.#tid} does not stop`, { errno: 'ETIMEDOUT' });
  }

  /**
   * The thread's id if it has stopped or ended, 0 if it runs, or a negative errno. It was woken on this CPU, which it
   * needs to get on: waiting without giving that up would take until the scheduler does.
   */
  #poll(): number {
    const result = trySyscall('wait4', this.#tid, addressOf(this.#status), __WALL | WNOHANG, 0);
    if (result === 0) trySyscall('sched_yield');
    return result;
  }

  #request(doing: string, request: number, address: number, data: number): void {
    const result = trySyscall('ptrace', request, this.#tid, address, data);
    if (result < 0) throw syscallError(`thread ${this.#tid}: ${doing}`, 'ptrace', -result);
  }
}

function isStop(status: number): boolean {
  return (status & 0xff) === 0x7f;
}

function signalOf(status: number): number {
  return (status >> 8) & 0xff;
}

function eventOf(status: number): number {
  return status >> 16;
}
