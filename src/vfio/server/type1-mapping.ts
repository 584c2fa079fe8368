import {
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_VADDR,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
  VFIO_DMA_UNMAP_FLAG_VADDR,
  vfio_bitmap,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
} from '../../abi/vfio.ts';
import type { ContainerArgument } from '../argument.ts';
import { LAST_IOVA, wrapped, wraps, type ContainerHost, type ContainerState } from './container.ts';
import { refuse } from './refuse.ts';
import { tellDirty } from './type1-dirty.ts';

/*
 * Mappings, as drivers/vfio/vfio_iommu_type1.c of Linux 6.12 makes, changes and removes them (vfio_dma_do_map, vfio_dma_do_unmap): with
 * the flags VADDR, memory that is mapped goes from a program to the next (linux/vfio.h, 5.12), as one VMM takes over from another.
 */

const ACCESS = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;

export function mapDma(argument: ContainerArgument, container: ContainerState, host: ContainerHost): number {
  const { argsz, flags, vaddr, iova, size } = vfio_iommu_type1_dma_map.decode(argument.read(32));
  const text = `VFIO_IOMMU_MAP_DMA: 0x${size.toString(16)} bytes at 0x${iova.toString(16)}`;
  const givesAddress = (flags & VFIO_DMA_MAP_FLAG_VADDR) !== 0;
  if (argsz < 32 || (flags & ~(ACCESS | VFIO_DMA_MAP_FLAG_VADDR)) !== 0) {
    throw refuse('EINVAL', `VFIO_IOMMU_MAP_DMA: argsz ${argsz}, flags ${flags}`);
  }
  if (size !== 0n && (wraps(iova, size) || wraps(vaddr, size))) throw wrapped(host, `${text} wrap`);
  if (givesAddress === ((flags & ACCESS) !== 0)) throw refuse('EINVAL', `${text}: flags ${flags}`);
  if (size === 0n || (size | iova | vaddr) % host.pageSize !== 0n) throw refuse('EINVAL', `${text} are no whole pages`);
  const owner = BigInt(container.inode);
  if (givesAddress) {
    host.mappings.giveAddress(owner, iova, size, argument.id, { ...host.mapper(), vaddr });
    return 0;
  }
  if (iova + size - 1n > LAST_IOVA) throw refuse('EINVAL', `${text} are out of range`);
  const writable = (flags & VFIO_DMA_MAP_FLAG_WRITE) !== 0;
  const readable = (flags & VFIO_DMA_MAP_FLAG_READ) !== 0;
  host.mappings.map(owner, iova, size, argument.id, { ...host.mapper(), vaddr, writable, readable });
  return 0;
}

export function unmapDma(argument: ContainerArgument, container: ContainerState, host: ContainerHost): number {
  const header = argument.read(vfio_iommu_type1_dma_unmap.size);
  const { argsz, flags, iova, size } = vfio_iommu_type1_dma_unmap.decode(header);
  const known = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP | VFIO_DMA_UNMAP_FLAG_ALL | VFIO_DMA_UNMAP_FLAG_VADDR;
  const wantsBitmap = (flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP) !== 0;
  if (argsz < 24 || (flags & ~known) !== 0 || (wantsBitmap && flags !== VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP)) {
    throw refuse('EINVAL', `VFIO_IOMMU_UNMAP_DMA: argsz ${argsz}, flags ${flags}`);
  }
  const isAll = (flags & VFIO_DMA_UNMAP_FLAG_ALL) !== 0;
  checkRange(isAll, iova, size, host);
  argument.write(header); // it can be answered: nothing is unmapped in vain
  const owner = BigInt(container.inode);
  if (wantsBitmap) {
    if (argsz < 24 + vfio_bitmap.size || !container.logging) {
      throw refuse('EINVAL', 'VFIO_IOMMU_UNMAP_DMA: a dirty bitmap needs argsz for it, and logging');
    }
    const whole = argument.read(24 + vfio_bitmap.size);
    host.mappings.checkWhole(owner, iova, size); // what is told is unmapped
    tellDirty(argument, vfio_bitmap.decode(whole, 24), { iova, length: size }, container, host);
  }
  const bytes = (flags & VFIO_DMA_UNMAP_FLAG_VADDR) !== 0 ? lose() : remove();
  argument.write(vfio_iommu_type1_dma_unmap.encode({ argsz, flags, iova, size: bytes }));
  return 0;

  function lose(): bigint {
    return host.mappings.loseAddresses(owner, iova, isAll ? LAST_IOVA + 1n : size, argument.id);
  }

  function remove(): bigint {
    return isAll ? host.mappings.unmapAll(owner, argument.id) : host.mappings.unmap(owner, iova, size, argument.id);
  }
}

function checkRange(isAll: boolean, iova: bigint, size: bigint, host: ContainerHost): void {
  const text = `VFIO_IOMMU_UNMAP_DMA: 0x${size.toString(16)} bytes at 0x${iova.toString(16)}`;
  if (isAll) {
    if (iova !== 0n || size !== 0n) throw refuse('EINVAL', `${text}: with ALL, both must be 0`);
    return;
  }
  if (size === 0n || (size | iova) % host.pageSize !== 0n) throw refuse('EINVAL', `${text} are no whole pages`);
  if (wraps(iova, size)) throw wrapped(host, `${text} wrap`);
}
