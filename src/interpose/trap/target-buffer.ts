import { iovec } from '../../abi/ptrace.ts';
import { arch } from '../../sys/libc.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import type { Call } from './call.ts';

/** The most pieces that one call may name, and the longest that they may be together (linux/uio.h, linux/fs.h). */
const UIO_MAXIOV = 1024;
const MAX_RW_COUNT = 0x7fff_f000;
const { readv, writev, preadv, pwritev, preadv2, pwritev2 } = arch.syscalls;
const VECTORED: ReadonlySet<number> = new Set([readv, writev, preadv, pwritev, preadv2, pwritev2]);

/**
 * The memory that a read or write of the target names: one piece, or those of readv and writev one after the other. The kernel
 * calls a driver that has only read and write for each of them, until one moves less than it might (fs/read_write.c of
 * Linux 6.12: do_loop_readv_writev); here they are one, so that the whole is delivered or nothing has happened.
 */
export class TargetBuffer {
  readonly #call: Call;
  readonly #pieces: readonly { readonly address: number; readonly length: number }[];
  readonly length: number;

  private constructor(
    call: Call,
    pieces: readonly { readonly address: number; readonly length: number }[],
    length: number,
  ) {
    this.#call = call;
    this.#pieces = pieces;
    this.length = length;
  }

  /** Throws `EINVAL` as the kernel does (lib/iov_iter.c: import_iovec). */
  static of(call: Call): TargetBuffer {
    if (!VECTORED.has(call.nr)) {
      const length = call.count(2);
      return new TargetBuffer(call, [{ address: call.count(1), length }], length);
    }
    const count = call.count(2);
    if (count > UIO_MAXIOV) throw refuse('EINVAL', `data fd: ${count} pieces of memory`);
    const vectors = count === 0 ? new Uint8Array(0) : call.readArg(1, count * iovec.size);
    let total = 0;
    const pieces = Array.from({ length: count }, (_, n) => {
      const { iov_base, iov_len } = iovec.decode(vectors, n * iovec.size);
      if (iov_len >= 2n ** 63n) throw refuse('EINVAL', `data fd: a piece of memory of ${iov_len} bytes`);
      const length = Math.min(Number(iov_len), MAX_RW_COUNT - total);
      total += length;
      return { address: Number(iov_base), length };
    });
    return new TargetBuffer(call, pieces, total);
  }

  /** Proves that `length` bytes can be written. Throws `EFAULT`. */
  prove(length: number): void {
    this.#each(length, (address, _, count) => this.#call.prove(address, count));
  }

  /** Writes `length` bytes that begin at an address here. Throws `EFAULT`. */
  write(at: number, length: number): void {
    this.#each(length, (address, done, count) => this.#call.writeFrom(address, at + done, count));
  }

  /** Reads `length` bytes to an address here. Throws `EFAULT`. */
  read(at: number, length: number): void {
    this.#each(length, (address, done, count) => this.#call.readTo(address, at + done, count));
  }

  #each(length: number, move: (address: number, done: number, count: number) => void): void {
    let done = 0;
    for (const piece of this.#pieces) {
      const count = Math.min(piece.length, length - done);
      if (count > 0) move(piece.address, done, count);
      done += count;
    }
  }
}
