import type { DmaMappings } from './dma-mappings.ts';
import type { Ioas } from './iommufd-state.ts';
import { refuse } from './refuse.ts';

const U64 = 2n ** 64n;

interface Space {
  readonly mappings: DmaMappings;
  readonly key: bigint;
  /** The first address that there is not. */
  readonly end: bigint;
  readonly pageSize: bigint;
  readonly alignment: bigint;
}

/**
 * The lowest room for so many bytes of memory, which begin at `vaddr`: aligned as the memory is, up to the size, so that large pages fit
 * (drivers/iommu/iommufd/io_pagetable.c of Linux 6.12: iopt_alloc_iova). Never address 0. Throws `ENOSPC`.
 */
export function freeIova(space: Space, { allowed }: Pick<Ioas, 'allowed'>, vaddr: bigint, length: bigint): bigint {
  const { pageSize, end, alignment } = space;
  if (length >= (U64 - 1n) / 2n) throw refuse('EOVERFLOW', `iommufd: ${length} bytes`);
  const step = vaddr === 0n ? powerAbove(length) : lower(powerAbove(length), vaddr & -vaddr);
  if (step < alignment) throw refuse('EINVAL', `iommufd: memory at 0x${vaddr.toString(16)} begins at no page`);
  const spans =
    allowed.length === 0
      ? [[pageSize, U64 - 1n - pageSize] as const]
      : allowed.map(([start, last]) => [BigInt(start), BigInt(last)] as const);
  for (const [start, last] of spans) {
    const found = roomIn(space, start, lower(last + 1n, end), step, vaddr % pageSize, length);
    if (found !== undefined) return found;
  }
  throw refuse('ENOSPC', `iommufd: no room for ${length} bytes`);
}

/** The lowest room between two addresses. */
function roomIn(
  { mappings, key }: Space,
  from: bigint,
  to: bigint,
  step: bigint,
  offset: bigint,
  length: bigint,
): bigint | undefined {
  if (to <= from) return undefined;
  const used = [...mappings.within(key, from, to - from), { iova: to, size: 0n }];
  let at = from;
  for (const { iova, size } of used) {
    const first = (((at + step - 1n) / step) * step) | offset;
    if (first + length <= iova) return first;
    at = iova + size > at ? iova + size : at;
  }
  return undefined;
}

function powerAbove(length: bigint): bigint {
  let power = 1n;
  while (power < length) power *= 2n;
  return power;
}

function lower(one: bigint, other: bigint): bigint {
  return one < other ? one : other;
}
