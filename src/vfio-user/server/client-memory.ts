import { VFIO_USER_DMA_READ, VFIO_USER_DMA_WRITE, vfio_user_dma_region_access } from '../../abi/vfio-user.ts';
import { checked } from '../wire/link.ts';
import { closeFds, protocolError, type Message } from '../wire/message.ts';
import type { Client } from './client.ts';

const HEAD = vfio_user_dma_region_access.size;

type Command = typeof VFIO_USER_DMA_READ | typeof VFIO_USER_DMA_WRITE;
const NAMES = { [VFIO_USER_DMA_READ]: 'VFIO_USER_DMA_READ', [VFIO_USER_DMA_WRITE]: 'VFIO_USER_DMA_WRITE' } as const;

/** What a device reads or writes, as far as the client has answered. */
interface Access {
  readonly command: Command;
  readonly address: number;
  readonly length: number;
  done: number;
  /** To what was asked last. */
  reply: Message | undefined;
}

/**
 * Memory that a client has mapped without a file: it is asked to read and write it, for as much at once as it takes (docs/interop/vfio-user.rst:
 * max_data_xfer_size). Nobody waits for its replies: whoever accesses memory is told that it is awaited, and comes again for the same.
 *
 * The client owes one reply at most, so nothing that is asked overtakes what was asked before. An access that was abandoned has no more
 * asked; the reply that is owed says nothing to anybody when it comes, and until then nothing is asked.
 */
export class ClientMemory {
  #access: Access | undefined;
  #owed: Command | undefined;

  /** The client has not answered what it was asked, wanted or not. */
  get isOwed(): boolean {
    return this.#owed !== undefined;
  }

  /** The client may carry out a write yet that nobody wants any more. */
  get owesAbandonedWrite(): boolean {
    return this.#owed === VFIO_USER_DMA_WRITE && this.#access === undefined;
  }

  /** `VFIO_USER_DMA_READ`. Throws `EPROTO` for an answer that has not what was asked for, and the errno of one that says why. */
  read(client: Client, address: number, into: Uint8Array): true | 'awaited' {
    return this.#move(client, VFIO_USER_DMA_READ, address, into);
  }

  /** `VFIO_USER_DMA_WRITE`. Throws the errno of an answer that says why not. */
  write(client: Client, address: number, from: Uint8Array): true | 'awaited' {
    return this.#move(client, VFIO_USER_DMA_WRITE, address, from);
  }

  #move(client: Client, command: Command, address: number, bytes: Uint8Array): true | 'awaited' {
    if (this.#owed !== undefined) return 'awaited';
    const access = this.#accessTo(command, address, bytes.length);
    this.#access = undefined; // if it fails
    const { reply } = access;
    if (reply !== undefined) {
      const length = pieceOf(client, access);
      const { body } = checked(reply, NAMES[command], client.connection.peer);
      if (command === VFIO_USER_DMA_READ) bytes.set(dataIn(body, length), access.done);
      access.done += length;
      access.reply = undefined;
    }
    if (access.done === access.length) return true;
    this.#ask(client, access, bytes);
    this.#access = access;
    return 'awaited';
  }

  #accessTo(command: Command, address: number, length: number): Access {
    const access = this.#access;
    if (access?.command === command && access.address === address && access.length === length) return access;
    return { command, address, length, done: 0, reply: undefined };
  }

  #ask(client: Client, access: Access, bytes: Uint8Array): void {
    const { command, address, done } = access;
    const length = pieceOf(client, access);
    const data = command === VFIO_USER_DMA_WRITE ? bytes.subarray(done, done + length) : bytes.subarray(0, 0);
    const body = new Uint8Array(HEAD + data.length);
    vfio_user_dma_region_access.encode({ addr: BigInt(address + done), count: BigInt(length) }, body);
    body.set(data, HEAD);
    client.ask({ command, name: NAMES[command], body }, (reply) => {
      closeFds(reply);
      this.#owed = undefined;
      access.reply = reply;
    });
    this.#owed = command;
  }

  /** Nobody wants what is awaited any more. */
  abandon(): void {
    this.#access = undefined;
  }
}

/** How many bytes of an access are asked for next. */
function pieceOf({ version }: Client, { done, length }: Access): number {
  const most = Math.max(1, version?.maxDataXferSize ?? length);
  return Math.min(most, length - done);
}

function dataIn(body: Uint8Array, length: number): Uint8Array {
  const count = body.length < HEAD ? undefined : vfio_user_dma_region_access.decode(body).count;
  if (count === BigInt(length) && body.length === HEAD + length) return body.subarray(HEAD);
  const what = count === undefined ? `${body.length} bytes` : `${count} bytes of data in ${body.length}`;
  throw protocolError(`the client answers VFIO_USER_DMA_READ of ${length} bytes with ${what}`);
}
