import {
  vfio_user_bitmap,
  vfio_user_bitmap_range,
  vfio_user_dirty_pages,
  vfio_user_dma_unmap,
} from '../../abi/vfio-user.ts';
import {
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
} from '../../abi/vfio-iommu.ts';
import { bitmapSize, type DmaLog, type IovaRange } from '../../vfio/dma-log.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import { inBody } from '../server/body.ts';
import { MAX_BODY } from '../wire/connection.ts';

/** All addresses: what is mapped later is logged too. */
const EVERYTHING: IovaRange = { iova: 0n, length: 2n ** 63n };
const PAGE = 4096n;
const NOTHING = new Uint8Array(0);

/** v1's DIRTY_PAGES, and the dirty bitmap of a DMA_UNMAP, by the log of a v2 server. */
export class DirtyTranslation {
  readonly #log: DmaLog;
  #isOn = false;

  constructor(log: DmaLog) {
    this.#log = log;
  }

  /** The body of a DIRTY_PAGES's reply. A second start begins nothing anew, as that of a container of the kernel. */
  answer(body: Uint8Array): Uint8Array {
    const { argsz, flags } = inBody(vfio_user_dirty_pages, body);
    switch (flags) {
      case VFIO_IOMMU_DIRTY_PAGES_FLAG_START:
        if (!this.#isOn) this.#log.start([EVERYTHING], PAGE);
        this.#isOn = true;
        return NOTHING;
      case VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP:
        if (this.#isOn) this.#log.stop();
        this.#isOn = false;
        return NOTHING;
      case VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP:
        return this.#get(body, argsz);
      default:
        throw refuse('EINVAL', `DIRTY_PAGES: flags ${flags}`);
    }
  }

  #get(body: Uint8Array, argsz: number): Uint8Array {
    const at = vfio_user_dirty_pages.size;
    const range = inBody(vfio_user_bitmap_range, body, at);
    const head = at + vfio_user_bitmap_range.size;
    const needed = BigInt(head) + range.bitmap_size;
    const flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP;
    // who has too little room is told how much it takes (libvfio-user until September 2023, lib/libvfio-user.c: handle_dirty_pages_get)
    if (argsz < needed) return vfio_user_dirty_pages.encode({ argsz: Number(BigInt.asUintN(32, needed)), flags });
    const bits = this.#bitsOf({ iova: range.iova, length: range.size }, range.bitmap_pgsize, range.bitmap_size);
    const reply = new Uint8Array(head + bits.length);
    vfio_user_dirty_pages.encode({ argsz: reply.length, flags }, reply);
    vfio_user_bitmap_range.encode(range, reply, at);
    reply.set(bits, head);
    return reply;
  }

  #bitsOf(range: IovaRange, pageSize: bigint, size: bigint): Uint8Array {
    const isPowerOfTwo = pageSize > 0n && (pageSize & (pageSize - 1n)) === 0n;
    if (!this.#isOn || !isPowerOfTwo || range.length === 0n || size > BigInt(MAX_BODY / 2)) {
      throw refuse('EINVAL', `dirty bitmap: ${size} bytes for ${range.length} with pages of ${pageSize}`);
    }
    if (size < bitmapSize(range, pageSize)) throw refuse('EINVAL', `dirty bitmap: ${size} bytes for ${range.length}`);
    const bits = new Uint8Array(Number(size));
    this.#log.readAndClear(range, { pageSize, bits });
    return bits;
  }

  /**
   * A DMA_UNMAP that wants to know what was written to: what the server is asked in its place, and what makes the reply. `undefined` if
   * it does not want to.
   */
  unmap(body: Uint8Array): { readonly plain: Uint8Array; readonly reply: Uint8Array } | undefined {
    const unmap = inBody(vfio_user_dma_unmap, body);
    if ((unmap.flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP) === 0) return undefined;
    const head = vfio_user_dma_unmap.size;
    const { pgsize, size } = inBody(vfio_user_bitmap, body, head);
    const bitsAt = head + vfio_user_bitmap.size;
    if (BigInt(bitsAt) + size > unmap.argsz) throw refuse('EINVAL', `DMA_UNMAP: argsz ${unmap.argsz}`);
    const bits = this.#bitsOf({ iova: unmap.addr, length: unmap.size }, pgsize, size);
    const reply = new Uint8Array(bitsAt + bits.length);
    vfio_user_dma_unmap.encode({ ...unmap, argsz: reply.length }, reply);
    vfio_user_bitmap.encode({ pgsize, size }, reply, head);
    reply.set(bits, bitsAt);
    const flags = unmap.flags & ~VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
    return { plain: vfio_user_dma_unmap.encode({ ...unmap, argsz: head, flags }), reply };
  }

  /** The client has gone. */
  end(): void {
    if (this.#isOn) this.#log.stop();
    this.#isOn = false;
  }
}
