import {
  VFIO_USER_DIRTY_PAGES,
  VFIO_USER_DMA_MAP,
  VFIO_USER_DMA_UNMAP,
  VFIO_USER_F_DMA_REGION_FILE_IO,
  VFIO_USER_F_DMA_REGION_MMAP,
  vfio_user_bitmap,
  vfio_user_bitmap_range,
  vfio_user_dirty_pages,
  vfio_user_dma_map,
  vfio_user_dma_unmap,
} from '../../abi/vfio-user.ts';
import { VFIO_TYPE1v2_IOMMU } from '../../abi/vfio-device.ts';
import { VFIO_IOMMU_DIRTY_PAGES, VFIO_IOMMU_MAP_DMA, VFIO_IOMMU_UNMAP_DMA } from '../../abi/vfio-ioctl.ts';
import {
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  vfio_bitmap,
  vfio_iommu_type1_dirty_bitmap_get,
} from '../../abi/vfio-iommu.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import { isMemoryFile } from '../../sys/file.ts';
import { PAGE_SIZE } from '../../sys/libc.ts';
import type { ContainerHost, ContainerState } from '../../vfio/server/container.ts';
import { containerRequest } from '../../vfio/server/container-requests.ts';
import { DmaMappings } from '../../vfio/server/dma-mappings.ts';
import { MAPPING_STRIDE, MAX_MAPPINGS, type MemoryOwner } from '../../vfio/server/mapping.ts';
import { refuse } from '../../vfio/server/refuse.ts';
import type { WindowLog } from '../../vfio/server/window-log.ts';
import { MAX_BODY } from '../wire/connection.ts';
import { takeFd, type Message } from '../wire/message.ts';
import { FOLLOWING, MessageArgument } from './argument.ts';
import { inBody } from './body.ts';

/** The commands that a container of the kernel has ioctls for. */
export const DMA_REQUESTS: ReadonlySet<number> = new Set([
  VFIO_USER_DMA_MAP,
  VFIO_USER_DMA_UNMAP,
  VFIO_USER_DIRTY_PAGES,
]);

/** A number that names the one container of a client. */
const CONTAINER = 1;

/**
 * What a client has mapped for DMA: a container of the kernel with a type1 IOMMU, asked by messages. The memory behind a mapping is a file
 * that came with it, or, without one, the client's own, which it is asked to access.
 */
export class ClientDma implements ContainerHost {
  readonly pageSize = BigInt(PAGE_SIZE);
  mappings = noMappings();
  readonly #logs: readonly WindowLog[];
  /** The files, by the numbers that their mappings keep; a mapping without one has none here. */
  readonly #files = new Map<bigint, { readonly fd: OwnedFd; readonly iova: bigint }>();
  readonly #state: ContainerState = { inode: CONTAINER, iommu: VFIO_TYPE1v2_IOMMU, logging: false };
  #number = 0n;
  #requests = 0n;

  /** `logs`: what devices have written to. */
  constructor(logs: readonly WindowLog[]) {
    this.#logs = logs;
  }

  get container(): bigint {
    return BigInt(CONTAINER);
  }

  get isLogging(): boolean {
    return this.#state.logging;
  }

  hasGroup(): boolean {
    return true;
  }

  mapper(): MemoryOwner {
    return { process: this.#number, program: 0n };
  }

  logs(): readonly WindowLog[] {
    return this.#logs;
  }

  /** The file behind a mapping, by the number that it keeps. */
  fileOf(number: bigint): OwnedFd | undefined {
    return this.#files.get(number)?.fd;
  }

  /** DMA_MAP, DMA_UNMAP and v1's DIRTY_PAGES: the reply's body. */
  answer(message: Message): Uint8Array {
    switch (message.command) {
      case VFIO_USER_DMA_MAP:
        return this.#map(message);
      case VFIO_USER_DMA_UNMAP:
        return this.#unmap(message);
      default:
        return this.#dirtyPages(message);
    }
  }

  #request(struct: Uint8Array, command: number, following?: Uint8Array): MessageArgument {
    this.#requests += 1n;
    const argument = new MessageArgument(struct, following, this.#requests);
    containerRequest(argument, command, this.#state, this);
    return argument;
  }

  #map(message: Message): Uint8Array {
    const map = inBody(vfio_user_dma_map, message.body);
    const { fds } = message;
    if (fds.length > 1) throw refuse('EINVAL', `DMA_MAP: ${fds.length} descriptors`);
    const isFile = fds.length === 1;
    const kinds = VFIO_USER_F_DMA_REGION_MMAP | VFIO_USER_F_DMA_REGION_FILE_IO;
    if (!isFile && (map.flags & kinds) !== 0) throw refuse('EINVAL', 'DMA_MAP: of a file, without its descriptor');
    if (isFile && (fds[0] === undefined || !isMemoryFile(fds[0].number)))
      throw refuse('EINVAL', 'DMA_MAP: the descriptor is none of a file');
    this.#number += 1n;
    // who is asked to access memory is told where by its address
    const offset = isFile ? map.offset : map.addr;
    this.#request(vfio_user_dma_map.encode({ ...map, flags: map.flags & ~kinds, offset }), VFIO_IOMMU_MAP_DMA);
    const fd = takeFd(message);
    if (fd !== undefined) this.#files.set(this.#number, { fd, iova: map.addr });
    return new Uint8Array(0);
  }

  #unmap({ body }: Message): Uint8Array {
    const unmap = inBody(vfio_user_dma_unmap, body);
    const head = vfio_user_dma_unmap.size;
    if ((unmap.flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP) === 0) {
      const { answer } = this.#request(body.slice(0, head), VFIO_IOMMU_UNMAP_DMA);
      this.#closeUnmapped();
      return answer;
    }
    const { pgsize, size } = inBody(vfio_user_bitmap, body, head);
    const bitsAt = head + vfio_user_bitmap.size;
    const reply = new Uint8Array(bitsAt + roomFor(size, unmap.argsz - bitsAt));
    const struct = new Uint8Array(head + vfio_bitmap.size);
    vfio_user_dma_unmap.encode({ ...unmap, argsz: struct.length }, struct);
    vfio_bitmap.encode({ pgsize, size, data: FOLLOWING }, struct, head);
    this.#request(struct, VFIO_IOMMU_UNMAP_DMA, reply.subarray(bitsAt));
    this.#closeUnmapped();
    reply.set(struct.subarray(0, head));
    vfio_user_dma_unmap.view(reply).argsz = reply.length;
    vfio_user_bitmap.encode({ pgsize, size }, reply, head);
    return reply;
  }

  #dirtyPages({ body }: Message): Uint8Array {
    const { argsz, flags } = inBody(vfio_user_dirty_pages, body);
    const head = vfio_user_dirty_pages.size;
    if (flags !== VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP) {
      this.#request(body.slice(0, head), VFIO_IOMMU_DIRTY_PAGES);
      return new Uint8Array(0);
    }
    const range = inBody(vfio_user_bitmap_range, body, head);
    const bitsAt = head + vfio_user_bitmap_range.size;
    const needed = BigInt(bitsAt) + range.bitmap_size;
    if (argsz < needed) return vfio_user_dirty_pages.encode({ argsz: Number(BigInt.asUintN(32, needed)), flags });
    const reply = new Uint8Array(bitsAt + roomFor(range.bitmap_size, argsz - bitsAt));
    const struct = new Uint8Array(head + vfio_iommu_type1_dirty_bitmap_get.size);
    vfio_user_dirty_pages.encode({ argsz: struct.length, flags }, struct);
    vfio_iommu_type1_dirty_bitmap_get.encode({ ...range, bitmap_data: FOLLOWING }, struct, head);
    this.#request(struct, VFIO_IOMMU_DIRTY_PAGES, reply.subarray(bitsAt));
    vfio_user_dirty_pages.encode({ argsz: reply.length, flags }, reply);
    vfio_user_bitmap_range.encode(range, reply, head);
    return reply;
  }

  #closeUnmapped(): void {
    for (const [number, { fd, iova }] of this.#files) {
      if (this.mappings.at(this.container, iova)?.process === number) continue;
      fd.close();
      this.#files.delete(number);
    }
  }

  /** The client has gone, and all that it has mapped with it. */
  clear(): void {
    this.#state.logging = false;
    for (const { fd } of this.#files.values()) fd.close();
    this.#files.clear();
    this.mappings = noMappings();
  }
}

function noMappings(): DmaMappings {
  return new DmaMappings(new Uint8Array(MAX_MAPPINGS * MAPPING_STRIDE));
}

/** The bytes of a bitmap, if a reply has room for so many. */
function roomFor(size: bigint, left: number): number {
  if (size > BigInt(Math.min(left, MAX_BODY - 64)))
    throw refuse('EINVAL', `dirty bitmap: ${size} bytes, room for ${left}`);
  return Number(size);
}
