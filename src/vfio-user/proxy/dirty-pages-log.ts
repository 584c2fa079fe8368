import { VFIO_USER_DIRTY_PAGES, vfio_user_bitmap_range, vfio_user_dirty_pages } from '../../abi/vfio-user.ts';
import {
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
} from '../../abi/vfio-iommu.ts';
import { ShimError } from '../../error.ts';
import { bitmapSize, type DirtyBitmap, type DmaLog, type IovaRange } from '../../vfio/dma-log.ts';
import { eachPage, setPage } from '../../vfio/page-bitmap.ts';
import type { Server } from '../client/server.ts';
import type { MappedRanges } from './mapped-ranges.ts';

const NAME = 'VFIO_USER_DIRTY_PAGES';
const HEAD = vfio_user_dirty_pages.size + vfio_user_bitmap_range.size;

/**
 * The dirty pages of a v1 server, as a v2 client asks for them: by any range. The server tells those of a whole mapping, and forgets them:
 * what a client has not asked for is kept until it does.
 */
export class DirtyPagesLog implements DmaLog {
  readonly #server: Server;
  readonly #mapped: MappedRanges;
  readonly #pageSize: bigint;
  /** Of mappings, the pages that nobody was told of yet. */
  readonly #kept = new Map<bigint, { readonly length: bigint; readonly bits: Uint8Array }>();

  constructor(server: Server, mapped: MappedRanges, pageSize: bigint) {
    this.#server = server;
    this.#mapped = mapped;
    this.#pageSize = pageSize;
  }

  start(): bigint {
    this.#kept.clear();
    this.#ask(VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
    return this.#pageSize;
  }

  stop(): void {
    this.#kept.clear();
    this.#ask(VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP);
  }

  #ask(flags: number): void {
    const body = vfio_user_dirty_pages.encode({ argsz: vfio_user_dirty_pages.size, flags });
    this.#server.link.request({ command: VFIO_USER_DIRTY_PAGES, name: NAME, body });
  }

  readAndClear(range: IovaRange, into: DirtyBitmap): void {
    for (const mapping of this.#mapped.within(range)) this.#move(mapping, this.#bitsOf(mapping), range, into);
  }

  /** What the server knows of a mapping by now, and what was kept of it. */
  #bitsOf(mapping: IovaRange): Uint8Array {
    const fresh = this.#get(mapping);
    const kept = this.#kept.get(mapping.iova);
    if (kept?.length === mapping.length) {
      for (const [n, byte] of kept.bits.entries()) fresh[n] = (fresh[n] ?? 0) | byte;
    }
    this.#kept.set(mapping.iova, { length: mapping.length, bits: fresh });
    return fresh;
  }

  #get(mapping: IovaRange): Uint8Array {
    const size = bitmapSize(mapping, this.#pageSize);
    const body = new Uint8Array(HEAD);
    vfio_user_dirty_pages.encode({ argsz: HEAD + size, flags: VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP }, body);
    vfio_user_bitmap_range.encode(
      { iova: mapping.iova, size: mapping.length, bitmap_pgsize: this.#pageSize, bitmap_size: BigInt(size) },
      body,
      vfio_user_dirty_pages.size,
    );
    const reply = this.#server.link.request({ command: VFIO_USER_DIRTY_PAGES, name: NAME, body });
    if (reply.length !== HEAD + size) {
      const what = `${NAME} for a bitmap of ${size} bytes is answered with ${reply.length}`;
      throw new ShimError('ERR_DEVICE', `vfio-user: ${what}`, { errno: 'EIO' });
    }
    return reply.slice(HEAD);
  }

  /** Sets the bits of the pages that lie in the range, and forgets them. */
  #move(mapping: IovaRange, bits: Uint8Array, range: IovaRange, into: DirtyBitmap): void {
    const pageOf = (iova: bigint): number => Number((iova - mapping.iova) / this.#pageSize);
    const end =
      range.iova + range.length < mapping.iova + mapping.length
        ? range.iova + range.length
        : mapping.iova + mapping.length;
    const first = range.iova > mapping.iova ? pageOf(range.iova) : 0;
    const last = pageOf(end + this.#pageSize - 1n);
    const told: number[] = [];
    eachPage(bits, first, last, (page) => {
      const at = mapping.iova + BigInt(page) * this.#pageSize;
      setPage(into.bits, Number((at < range.iova ? 0n : at - range.iova) / into.pageSize));
      told.push(page);
    });
    for (const page of told) bits[page >>> 3] = (bits[page >>> 3] ?? 0) & ~(1 << (page & 7));
  }
}

/** For a server that logs nothing: its device may have written anywhere. */
export function allDirty(warn: (message: string) => void): DmaLog {
  return {
    start(_ranges, pageSize) {
      warn('the server logs no DMA: its client is told that all memory is dirty');
      return pageSize;
    },
    stop: () => {},
    readAndClear(range, { pageSize, bits }) {
      const pages = Number((range.length + pageSize - 1n) / pageSize);
      bits.fill(0xff, 0, pages >>> 3);
      for (let page = pages & ~7; page < pages; page += 1) setPage(bits, page);
    },
  };
}
