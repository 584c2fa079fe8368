import { VFIO_USER_DMA_MAP, vfio_user_dma_map, vfio_user_dma_unmap } from '../../abi/vfio-user.ts';
import { VFIO_DMA_UNMAP_FLAG_ALL } from '../../abi/vfio-iommu.ts';
import type { IovaRange } from '../../vfio/dma-log.ts';
import type { Message } from '../wire/message.ts';

/** What a client has mapped for DMA, as its server has taken it: servers of v1 tell dirty pages of whole mappings only. */
export class MappedRanges {
  readonly #sizes = new Map<bigint, bigint>();

  /** A server has carried out a DMA_MAP or DMA_UNMAP. */
  note({ command, body }: Pick<Message, 'command' | 'body'>): void {
    if (command === VFIO_USER_DMA_MAP) {
      const { addr, size } = vfio_user_dma_map.decode(body);
      this.#sizes.set(addr, size);
      return;
    }
    const { flags, addr, size } = vfio_user_dma_unmap.decode(body);
    if ((flags & VFIO_DMA_UNMAP_FLAG_ALL) !== 0) this.#sizes.clear();
    else for (const { iova } of this.within({ iova: addr, length: size })) this.#sizes.delete(iova);
  }

  /** The mappings that have an address of a range. */
  within({ iova, length }: IovaRange): IovaRange[] {
    return [...this.#sizes]
      .map(([at, size]) => ({ iova: at, length: size }))
      .filter((mapping) => mapping.iova < iova + length && iova < mapping.iova + mapping.length);
  }
}
