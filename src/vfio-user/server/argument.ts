import { ShimError } from '../../error.ts';
import type { ContainerArgument } from '../../vfio/argument.ts';

/**
 * Where the pointer of a struct leads that has one: to what follows in the message. No address is behind it: whoever answers a request
 * reads and writes by it.
 */
export const FOLLOWING = 1n << 48n;

const NOTHING: Uint8Array = new Uint8Array(0);

/**
 * The struct of a request that came in a message, as linux/vfio.h has it. What one of its pointers leads to, `following`, begins at
 * {@link FOLLOWING}. It is answered where it lies.
 */
export class MessageArgument implements ContainerArgument {
  /** The kernel repeats no request, and nobody takes over here. */
  readonly id: bigint;
  readonly value = Number.POSITIVE_INFINITY;
  readonly struct: Uint8Array;
  readonly following: Uint8Array;
  /** How many bytes of the struct the answer has. */
  #written = 0;

  constructor(struct: Uint8Array, following = NOTHING, id = 0n) {
    this.struct = struct;
    this.following = following;
    this.id = id;
  }

  /** The answer, as far as the struct goes. */
  get answer(): Uint8Array {
    return this.struct.subarray(0, this.#written);
  }

  read(size: number): Uint8Array {
    if (size > this.struct.length) throw fault(`a message of ${this.struct.length} bytes has not ${size}`);
    return this.struct.slice(0, size);
  }

  write(bytes: Uint8Array, skip = 0): void {
    if (skip + bytes.length > this.struct.length) throw fault(`an answer of ${skip + bytes.length} bytes does not fit`);
    this.struct.set(bytes, skip);
    this.#written = Math.max(this.#written, skip + bytes.length);
  }

  readAt(address: bigint, size: number): Uint8Array {
    return this.#followingAt(address, size).slice();
  }

  writeAt(address: bigint, bytes: Uint8Array): void {
    this.#followingAt(address, bytes.length).set(bytes);
  }

  #followingAt(address: bigint, size: number): Uint8Array {
    const at = address - FOLLOWING;
    if (at < 0n || at + BigInt(size) > BigInt(this.following.length)) throw fault(`nothing is at ${address}`);
    return this.following.subarray(Number(at), Number(at) + size);
  }
}

function fault(why: string): ShimError {
  return new ShimError('ERR_TARGET', `vfio-user: ${why}`, { errno: 'EINVAL' });
}
