import { VFIO_USER_DMA_READ, VFIO_USER_DMA_WRITE, vfio_user_dma_region_access } from '../../abi/vfio-user.ts';
import { protocolError } from '../wire/message.ts';
import type { Client } from './client.ts';

/*
 * Memory that a client has mapped without a file: it is asked to read and write it, for as much at once as it takes.
 */

const HEAD = vfio_user_dma_region_access.size;

/** `VFIO_USER_DMA_READ`. Throws `EPROTO` for an answer that has not what was asked for, and the errno of one that says why. */
export function readClientMemory(client: Client, address: number, into: Uint8Array): void {
  eachPiece(client, into.length, (at, length) => {
    const body = vfio_user_dma_region_access.encode({ addr: BigInt(address + at), count: BigInt(length) });
    const reply = client.request({ command: VFIO_USER_DMA_READ, name: 'VFIO_USER_DMA_READ', body });
    const count = reply.length < HEAD ? undefined : vfio_user_dma_region_access.decode(reply).count;
    if (count !== BigInt(length) || reply.length !== HEAD + length) {
      const what = count === undefined ? `${reply.length} bytes` : `${count} bytes of data in ${reply.length}`;
      throw protocolError(`the client answers VFIO_USER_DMA_READ of ${length} bytes with ${what}`);
    }
    into.set(reply.subarray(HEAD), at);
  });
}

/** `VFIO_USER_DMA_WRITE`. Throws the errno of an answer that says why not. */
export function writeClientMemory(client: Client, address: number, from: Uint8Array): void {
  eachPiece(client, from.length, (at, length) => {
    const body = new Uint8Array(HEAD + length);
    vfio_user_dma_region_access.encode({ addr: BigInt(address + at), count: BigInt(length) }, body);
    body.set(from.subarray(at, at + length), HEAD);
    client.request({ command: VFIO_USER_DMA_WRITE, name: 'VFIO_USER_DMA_WRITE', body });
  });
}

/** A client takes as many bytes at once as it has said, DMA included (docs/vfio-user.rst: max_data_xfer_size). */
function eachPiece({ version }: Client, length: number, move: (at: number, length: number) => void): void {
  const most = Math.max(1, version?.maxDataXferSize ?? length);
  for (let done = 0; done < length; done += most) move(done, Math.min(most, length - done));
}
