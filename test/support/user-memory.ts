import type { ContainerArgument } from '../../src/vfio/argument.ts';
import { ShimError } from '../../src/error.ts';

export const FILLER = 0xa5;

/** An address where there is no memory, in the first page. */
export const BAD_ADDRESS = 8n;

/** Memory of whoever makes requests: bytes at an address, and nothing behind them. */
export class UserMemory {
  readonly bytes: Uint8Array;
  readonly address: number;

  constructor(bytes: Uint8Array = new Uint8Array(64 * 1024), address = 0x10_0000) {
    this.bytes = bytes;
    this.address = address;
  }

  /** Fills the memory with a byte, puts some bytes so that `room` bytes from their beginning reach the end, and says where. */
  put(bytes: Uint8Array, room = bytes.length): number {
    this.bytes.fill(FILLER);
    const at = this.bytes.length - room;
    this.bytes.set(bytes.subarray(0, room), at);
    return this.address + at;
  }

  /** The last `room` bytes. */
  end(room: number): Uint8Array {
    return this.bytes.slice(this.bytes.length - room);
  }

  /** A request's argument: a number, or an address here. */
  argument(value: number | bigint, id = 1n): ContainerArgument {
    const address = BigInt.asUintN(64, BigInt(value));
    return {
      id,
      value: address > Number.MAX_SAFE_INTEGER ? Infinity : Number(address),
      read: (size) => this.#at(address, size).slice(),
      write: (bytes, skip = 0) => this.#at(address + BigInt(skip), bytes.length).set(bytes),
      readAt: (place, size) => this.#at(place, size).slice(),
      writeAt: (place, bytes) => this.#at(place, bytes.length).set(bytes),
    };
  }

  #at(address: bigint, length: number): Uint8Array {
    const at = Number(address) - this.address;
    if (at >= 0 && at + length <= this.bytes.length) return this.bytes.subarray(at, at + length);
    throw new ShimError('ERR_TARGET', `no ${length} bytes at 0x${address.toString(16)}`, { errno: 'EFAULT' });
  }
}
