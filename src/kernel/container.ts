import { SEEK_DATA, SEEK_HOLE } from '../abi/fcntl.ts';
import { VFIO_GROUP_FLAGS_CONTAINER_SET, vfio_group_status } from '../abi/vfio-device.ts';
import { VFIO_GROUP_GET_STATUS, VFIO_IOMMU_DIRTY_PAGES } from '../abi/vfio-ioctl.ts';
import {
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  vfio_iommu_type1_dirty_bitmap,
  vfio_iommu_type1_dirty_bitmap_get,
} from '../abi/vfio-iommu.ts';
import { hasErrno, ShimError } from '../error.ts';
import { ioctl } from '../sys/ioctl.ts';
import { addressOf, PAGE_SIZE, syscall, trySyscall } from '../sys/libc.ts';
import { createSharedMemory, withSharedMemory } from '../sys/memory.ts';
import type { DirtyContainer } from '../vfio/dirty-container.ts';
import { PageBits } from '../vfio/page-bits.ts';
import { union, type PageRange, type PageSet } from '../vfio/page-ranges.ts';

/**
 * How far mappings are looked for, in pages: what type1 tells at once (drivers/vfio/vfio_iommu_type1.c: DIRTY_BITMAP_SIZE_MAX, a
 * bitmap of 256 MiB), and less, as a range must not end in a mapping.
 */
const REACHES = [2 ** 31 - 64, 2 ** 30, 2 ** 29, 2 ** 28];

/** A container of the kernel, by a descriptor that the caller owns. Another process's will do: only MAP is about the caller's memory. */
export class KernelContainer implements DirtyContainer {
  readonly pageSize = BigInt(PAGE_SIZE);
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  start(): void {
    this.#ask('START', VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
  }

  read({ range, bytes }: PageBits): void {
    this.#get(range, bytes);
  }

  mapped(): PageSet {
    for (const [n, end] of REACHES.entries()) {
      try {
        return this.#mappedBelow(end);
      } catch (error) {
        if (!hasErrno(error, 'EINVAL') || n === REACHES.length - 1) throw error;
      }
    }
    throw new RangeError('unreachable');
  }

  /** The bitmap is memory that takes no space where nothing was written to it, and says where that is. */
  #mappedBelow(end: number): PageSet {
    const size = PageBits.sizeOf({ first: 0, end });
    using memory = createSharedMemory('vfio-shim-mappings', size);
    const found: PageRange[] = [];
    withSharedMemory(memory.number, size, 0, (bytes) => {
      const bits = new PageBits({ first: 0, end }, bytes);
      this.#get(bits.range, bits.bytes);
      for (let at = 0; ;) {
        const from = trySyscall('lseek', memory.number, at, SEEK_DATA);
        if (from < 0) break; // ENXIO: no data behind this
        at = syscall('mappings', 'lseek', memory.number, from, SEEK_HOLE);
        found.push(...bits.setIn({ first: from * 8, end: Math.min(at * 8, end) }));
      }
    });
    return union(found);
  }

  #get({ first, end }: PageRange, bits: Uint8Array): void {
    if (bits.length < PageBits.sizeOf({ first, end }))
      throw new ShimError('ERR_ARGUMENT', 'dirty pages: too short a bitmap', { errno: 'EINVAL' });
    const get = vfio_iommu_type1_dirty_bitmap_get.encode({
      iova: BigInt(first) * this.pageSize,
      size: BigInt(end - first) * this.pageSize,
      bitmap_pgsize: this.pageSize,
      bitmap_size: BigInt(bits.length),
      // SAFETY: ask() gets the bytes as well, and references them until the call has returned
      bitmap_data: BigInt(addressOf(bits)),
    });
    this.#ask('GET_BITMAP', VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP, get, [bits]);
  }

  #ask(what: string, flags: number, data: Uint8Array = new Uint8Array(0), pointedTo: readonly Uint8Array[] = []): void {
    const { size } = vfio_iommu_type1_dirty_bitmap;
    const argument = new Uint8Array(size + data.length);
    vfio_iommu_type1_dirty_bitmap.encode({ argsz: argument.length, flags }, argument);
    argument.set(data, size);
    ioctl(this.#fd, `VFIO_IOMMU_DIRTY_PAGES ${what}`, VFIO_IOMMU_DIRTY_PAGES, argument, pointedTo);
  }
}

/** Whether a group is in a container (`VFIO_GROUP_GET_STATUS`, linux/vfio.h 3.6). Throws a `ShimError` with the kernel's errno. */
export function groupHasContainer(group: number): boolean {
  const status = vfio_group_status.encode({ argsz: vfio_group_status.size });
  ioctl(group, 'VFIO_GROUP_GET_STATUS', VFIO_GROUP_GET_STATUS, status);
  return (vfio_group_status.decode(status).flags & VFIO_GROUP_FLAGS_CONTAINER_SET) !== 0;
}
