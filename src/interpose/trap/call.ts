import { seccomp_notif } from '../../abi/seccomp.ts';
import {
  proveWritable,
  readProcessMemory,
  readProcessMemoryTo,
  readProcessString,
  writeProcessMemory,
  writeProcessMemoryFrom,
} from '../../sys/process-memory.ts';
import type { NotificationReply } from '../../sys/seccomp.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import { callBegins, clock } from './call-time.ts';
import { callerMemory } from './caller-memory.ts';

/** The kernel carries the call out itself, as if it had not been trapped. */
export const CONTINUE = -0x1_0000;
/** The call is answered already: with a descriptor, or by system calls that its thread was made to run. */
export const ANSWERED = -0x1_0001;

/** For how long a caller that was seen to wait is taken to wait still, in milliseconds. */
const SEEN = 1;

/**
 * A trapped system call: its numbers, and the memory of the thread that made it. Everything here comes from another
 * process. What was read from its memory is acted upon, and its memory written, only while the caller waits for the answer.
 */
export class Call {
  /** The notification as 32-bit words: numbers of this size cost nothing, and this is where every call begins. */
  readonly words: Uint32Array;
  #answers: Pick<NotificationReply, 'isValid'> | undefined;
  #seen = 0;
  readonly #check = (): void => this.#checkNow();

  constructor(notification: Uint8Array) {
    this.words = new Uint32Array(notification.buffer, notification.byteOffset, seccomp_notif.size / 4);
  }

  get id(): bigint {
    return (BigInt(this.word(ID + 1)) << 32n) | BigInt(this.word(ID));
  }
  /** The id of the thread that made the call. */
  get tid(): number {
    return this.word(PID);
  }
  get nr(): number {
    return this.word(NR) | 0;
  }
  /** An argument as the 64 bits it has. */
  arg(n: number): bigint {
    return (BigInt(this.high(n)) << 32n) | BigInt(this.u32(n));
  }
  /** The low 32 bits of an argument, as unsigned and as signed number. */
  u32(n: number): number {
    return this.word(ARGS + 2 * n);
  }
  s32(n: number): number {
    return this.u32(n) | 0;
  }
  /** The high 32 bits of an argument. */
  high(n: number): number {
    return this.word(ARGS + 2 * n + 1);
  }
  /** An argument as a number: a count, or an address. Infinity if it is too large to be exact, and so for either. */
  count(n: number): number {
    const high = this.high(n);
    return high > 0x1f_ffff ? Number.POSITIVE_INFINITY : high * 2 ** 32 + this.u32(n);
  }

  private word(at: number): number {
    return this.words[at] ?? 0;
  }

  /** The call was received just now, or was found to wait still. */
  begin(answers: Pick<NotificationReply, 'isValid'>): void {
    this.#answers = answers;
    this.#seen = callBegins();
  }

  /** Throws `EINTR` if the caller is gone. What has just been seen is not asked about again. */
  check(): void {
    if (clock.now() - this.#seen > SEEN) this.#checkNow();
  }

  #checkNow(): void {
    if (this.#answers?.isValid(this.id) === false) throw refuse('EINTR', 'the caller is gone');
    this.#seen = clock.now();
  }

  /** Reads `length` bytes of the caller's memory to an address here. Throws `EFAULT`. */
  readTo(address: number, at: number, length: number): void {
    if (length === 0) return;
    readProcessMemoryTo(this.tid, address, at, length, callerMemory(this.tid, this.#check));
    this.check(); // the read may have been held up for as long as somebody liked
  }

  /** Writes `length` bytes that begin at an address here. Throws `EFAULT`. */
  writeFrom(address: number, at: number, length: number): void {
    if (length === 0) return;
    this.check();
    writeProcessMemoryFrom(this.tid, address, at, length, callerMemory(this.tid, this.#check));
  }

  /** Proves that the caller's memory can be written, before what must not be done in vain. Throws `EFAULT`. */
  prove(address: number, length: number): void {
    this.check();
    proveWritable(this.tid, address, length, callerMemory(this.tid, this.#check));
  }

  /** The string that an argument points to; `undefined` if there is none of at most `limit` bytes. */
  stringArg(n: number, limit: number): string | undefined {
    const text = readProcessString(this.tid, this.count(n), limit, callerMemory(this.tid, this.#check));
    this.check();
    return text;
  }

  /** The first `size` bytes that an argument points to. Throws `EFAULT`. */
  readArg(n: number, size: number): Uint8Array {
    const bytes = new Uint8Array(size);
    readProcessMemory(this.tid, this.count(n), bytes, callerMemory(this.tid, this.#check));
    this.check();
    return bytes;
  }

  /** Writes to where an argument points, `skip` bytes in. Throws `EFAULT`. */
  writeArg(n: number, bytes: Uint8Array, skip = 0): void {
    this.check();
    const held = callerMemory(this.tid, this.#check);
    writeProcessMemory(this.tid, this.count(n) + skip, bytes, held);
  }
}

const { id, pid, nr, args0 } = seccomp_notif.fields;
const [ID, PID, NR, ARGS] = [id[1] / 4, pid[1] / 4, nr[1] / 4, args0[1] / 4] as const;
