import { VFIO_USER_DMA_READ, VFIO_USER_DMA_WRITE, vfio_user_dma_region_access } from '../../abi/vfio-user.ts';
import type { Message } from '../wire/message.ts';

const HEAD = vfio_user_dma_region_access.size;
const NOTHING = new Uint8Array(0);

/** No message has more data. */
const LONGEST = 1024 * 1024;

/**
 * What a client is asked for a server's command: the command as it is, or a DMA_READ or DMA_WRITE of more than the client takes at once in as many
 * as it takes, whose replies become one. A piece that fails is the answer.
 */
export class DmaPieces {
  readonly command: number;
  readonly #body: Uint8Array;
  readonly #limit: number;
  readonly #addr: bigint;
  /** Bytes of all pieces; 0 if there are none, as the command goes as it is. */
  readonly #total: number;
  /** The reply to all of it. */
  readonly #whole: Uint8Array;
  /** Bytes that were asked for, and that were answered. */
  #asked = 0;
  #answered = 0;

  /** `limit`: the client's max_data_xfer_size. */
  constructor(limit: number, { command, body }: Pick<Message, 'command' | 'body'>) {
    this.command = command;
    this.#body = body;
    const isAccess = command === VFIO_USER_DMA_READ || command === VFIO_USER_DMA_WRITE;
    const { addr, count } =
      isAccess && body.length >= HEAD ? vfio_user_dma_region_access.decode(body) : { addr: 0n, count: 0n };
    const isCut = limit > 0 && count > BigInt(limit) && count <= BigInt(LONGEST);
    this.#limit = limit;
    this.#addr = addr;
    this.#total = isCut ? Number(count) : 0;
    this.#whole = new Uint8Array(isCut && this.#isRead ? HEAD + this.#total : HEAD);
    vfio_user_dma_region_access.encode({ addr, count }, this.#whole);
  }

  get isWrite(): boolean {
    return this.command === VFIO_USER_DMA_WRITE && this.#body.length >= HEAD;
  }

  get #isRead(): boolean {
    return this.command === VFIO_USER_DMA_READ;
  }

  /** The body of what is to be asked next; `undefined` if all was. */
  next(): Uint8Array | undefined {
    const from = this.#asked;
    if (from > 0 && from >= this.#total) return undefined;
    this.#asked = this.#total === 0 ? 1 : Math.min(this.#total, from + this.#limit);
    if (this.#total === 0) return this.#body;
    const length = this.#asked - from;
    const head = vfio_user_dma_region_access.encode({ addr: this.#addr + BigInt(from), count: BigInt(length) });
    return Buffer.concat([head, this.#isRead ? NOTHING : this.#body.subarray(HEAD + from, HEAD + this.#asked)]);
  }

  /** The reply to what was asked last has come. Returns that to all of it, if there is no more to be asked. */
  take(reply: Message): Message | undefined {
    if (this.#total === 0 || reply.errno !== undefined) return reply;
    const length = this.#asked - this.#answered;
    if (this.#isRead && reply.body.length < HEAD + length) return { ...reply, errno: 'EIO', body: NOTHING };
    if (this.#isRead) this.#whole.set(reply.body.subarray(HEAD, HEAD + length), HEAD + this.#answered);
    this.#answered = this.#asked;
    return this.#answered === this.#total ? { ...reply, body: this.#whole } : undefined;
  }

  /** The reply of a client that has done all of a write. */
  get done(): Uint8Array {
    return this.#whole;
  }
}
