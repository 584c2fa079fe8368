import { constants, openSync } from 'node:fs';
import { VFIO_TYPE1v2_IOMMU } from '../../src/abi/vfio-device.ts';
import {
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
} from '../../src/abi/vfio-ioctl.ts';
import {
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
  vfio_iommu_type1_dirty_bitmap,
  vfio_iommu_type1_dirty_bitmap_get,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
} from '../../src/abi/vfio-iommu.ts';
import { FdPort } from '../../src/kernel/fd-port.ts';
import { OwnedFd } from '../../src/sys/fd.ts';
import { ioctl, ioctlValue } from '../../src/sys/ioctl.ts';
import { addressOf, cString } from '../../src/sys/libc.ts';
import { createSharedMemory, mapSharedMemory } from '../../src/sys/memory.ts';
import { bitmapSize, type IovaRange } from '../../src/vfio/dma-log.ts';

/** A device as its group names it. */
export interface GroupedDevice {
  readonly group: string;
  readonly uuid: string;
}

const open = (path: string): OwnedFd => new OwnedFd(openSync(path, constants.O_RDWR));

const PAGE_SIZE = 4096n;

/** A container of type 1 with devices in it, and memory of this process that they reach: what a VMM has, without a VM. */
export class Type1 implements Disposable {
  /** The devices, in the order in which they were given. */
  readonly ports: readonly FdPort[];
  readonly #container = open('/dev/vfio/vfio');
  readonly #others: OwnedFd[] = [];

  constructor(...devices: readonly GroupedDevice[]) {
    const groups = devices.map(({ group: path }, n) => {
      const group = open(path);
      this.#others.unshift(group);
      const container = new Uint8Array(Int32Array.of(this.#container.number).buffer);
      ioctl(group.number, 'VFIO_GROUP_SET_CONTAINER', VFIO_GROUP_SET_CONTAINER, container);
      if (n === 0) ioctlValue(this.#container.number, 'VFIO_SET_IOMMU', VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU);
      return group;
    });
    this.ports = devices.map(({ uuid }, n) => {
      const name = cString(uuid);
      const number = ioctl(groups[n]?.number ?? -1, 'VFIO_GROUP_GET_DEVICE_FD', VFIO_GROUP_GET_DEVICE_FD, name);
      const device = new OwnedFd(number);
      this.#others.unshift(device);
      return new FdPort(device);
    });
  }

  /** Maps new memory, which stays until this process ends. */
  map({ iova, length }: IovaRange, flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE): Uint8Array {
    using file = createSharedMemory('dma', Number(length));
    const { bytes, address } = mapSharedMemory(file.number, Number(length));
    const { size: argsz } = vfio_iommu_type1_dma_map;
    const map = vfio_iommu_type1_dma_map.encode({ argsz, flags, vaddr: BigInt(address), iova, size: length });
    ioctl(this.#container.number, 'VFIO_IOMMU_MAP_DMA', VFIO_IOMMU_MAP_DMA, map);
    return bytes;
  }

  unmap({ iova, length }: IovaRange): void {
    const { size: argsz } = vfio_iommu_type1_dma_unmap;
    const unmap = vfio_iommu_type1_dma_unmap.encode({ argsz, iova, size: length });
    ioctl(this.#container.number, 'VFIO_IOMMU_UNMAP_DMA', VFIO_IOMMU_UNMAP_DMA, unmap);
  }

  /** Dirty pages are tracked from now on, or no more. */
  track(on: boolean): void {
    const flags = on ? VFIO_IOMMU_DIRTY_PAGES_FLAG_START : VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP;
    const header = vfio_iommu_type1_dirty_bitmap;
    this.#dirtyPages(header.encode({ argsz: header.size, flags }));
  }

  /** Which pages of a range the container calls dirty: a bit for each. */
  dirty({ iova, length }: IovaRange): Uint8Array {
    const bits = new Uint8Array(bitmapSize({ iova, length }, PAGE_SIZE));
    const [header, get] = [vfio_iommu_type1_dirty_bitmap, vfio_iommu_type1_dirty_bitmap_get];
    const argument = new Uint8Array(header.size + get.size);
    header.encode({ argsz: argument.length, flags: VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP }, argument);
    const bitmap = { bitmap_pgsize: PAGE_SIZE, bitmap_size: BigInt(bits.length), bitmap_data: BigInt(addressOf(bits)) };
    get.encode({ iova, size: length, ...bitmap }, argument, header.size);
    this.#dirtyPages(argument, bits);
    return bits;
  }

  [Symbol.dispose](): void {
    for (const fd of [...this.#others, this.#container]) fd.close();
  }

  #dirtyPages(argument: Uint8Array, ...pointedTo: readonly Uint8Array[]): void {
    ioctl(this.#container.number, 'VFIO_IOMMU_DIRTY_PAGES', VFIO_IOMMU_DIRTY_PAGES, argument, pointedTo);
  }
}

/** The numbers of the bits that are set. */
export function setBits(bits: Uint8Array): number[] {
  const found: number[] = [];
  for (const [at, byte] of bits.entries()) {
    if (byte === 0) continue;
    for (let bit = 0; bit < 8; bit += 1) if ((byte >> bit) % 2 === 1) found.push(at * 8 + bit);
  }
  return found;
}
