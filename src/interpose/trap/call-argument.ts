import { withAddress } from '../../sys/libc.ts';
import type { ContainerArgument } from '../../vfio/argument.ts';
import type { Call } from './call.ts';

/** The argument of a trapped ioctl, in the memory of the thread that made it. */
export class CallArgument implements ContainerArgument {
  readonly #call: Call;

  constructor(call: Call) {
    this.#call = call;
  }

  get id(): bigint {
    return this.#call.id;
  }
  get value(): number {
    return this.#call.count(ARGUMENT);
  }

  read(size: number): Uint8Array {
    return this.#call.readArg(ARGUMENT, size);
  }

  write(bytes: Uint8Array, skip = 0): void {
    this.#call.writeArg(ARGUMENT, bytes, skip);
  }

  readAt(address: bigint, size: number): Uint8Array {
    const bytes = new Uint8Array(size);
    // SAFETY: the length is that of `bytes`
    withAddress(bytes, (at) => this.#call.readTo(Number(address), at, size));
    return bytes;
  }

  writeAt(address: bigint, bytes: Uint8Array): void {
    // SAFETY: the length is that of `bytes`
    withAddress(bytes, (at) => this.#call.writeFrom(Number(address), at, bytes.length));
  }
}

/** The third argument of ioctl(2). */
const ARGUMENT = 2;
