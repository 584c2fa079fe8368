import { VFIO_USER_DMA_READ, VFIO_USER_DMA_WRITE, vfio_user_dma_region_access } from '../../abi/vfio-user.ts';
import type { Client } from '../server/client.ts';
import { closeFds, type Message } from '../wire/message.ts';

const HEAD = vfio_user_dma_region_access.size;
const NOTHING = new Uint8Array(0);

/**
 * Has a client carry out a server's command: a DMA_READ or DMA_WRITE of more than the client takes at once in as many as it takes, whose replies
 * become one. `limit`: the client's max_data_xfer_size. A piece that fails is the answer.
 */
export function askInPieces(client: Pick<Client, 'ask'>, limit: number, { command, body }: Message): Message {
  const ask = (of: Uint8Array): Message => client.ask({ command, name: `command ${command}`, body: of });
  const isAccess = command === VFIO_USER_DMA_READ || command === VFIO_USER_DMA_WRITE;
  if (!isAccess || body.length < HEAD) return ask(body);
  const { addr, count } = vfio_user_dma_region_access.decode(body);
  if (limit <= 0 || count <= BigInt(limit) || count > BigInt(LONGEST)) return ask(body);
  const isRead = command === VFIO_USER_DMA_READ;
  const total = Number(count);
  const whole = new Uint8Array(HEAD + (isRead ? total : 0));
  vfio_user_dma_region_access.encode({ addr, count }, whole);
  for (let done = 0; ; done += limit) {
    const length = Math.min(limit, total - done);
    const head = vfio_user_dma_region_access.encode({ addr: addr + BigInt(done), count: BigInt(length) });
    const data = isRead ? NOTHING : body.subarray(HEAD + done, HEAD + done + length);
    const reply = ask(Buffer.concat([head, data]));
    if (reply.errno !== undefined) return reply;
    if (isRead && reply.body.length < HEAD + length) return { ...reply, errno: 'EIO', body: NOTHING };
    if (isRead) whole.set(reply.body.subarray(HEAD, HEAD + length), HEAD + done);
    if (done + length === total) return { ...reply, body: whole };
    closeFds(reply);
  }
}

/** No message has more data. */
const LONGEST = 1024 * 1024;
