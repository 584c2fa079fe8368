import * as abi from '../../abi/iommufd.ts';
import type { Values } from '../../abi/struct.ts';
import { hasErrno } from '../../error.ts';
import type { DmaMappings } from './dma-mappings.ts';
import type { MappedMemory } from './mapping.ts';
import { freeIova } from './free-iova.ts';
import type { Ask } from './iommufd-requests.ts';
import { alignmentOf, endOf, keyOf, objectOf, type Ioas } from './iommufd-state.ts';
import { refuse } from './refuse.ts';

/* What an address space maps (drivers/iommu/iommufd/ioas.c and io_pagetable.c of Linux 6.12). */

const { IOMMU_IOAS_MAP_FIXED_IOVA, IOMMU_IOAS_MAP_READABLE, IOMMU_IOAS_MAP_WRITEABLE } = abi;
const ACCESS = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE;
const U64 = 2n ** 64n;

/** A piece of memory, and how many bytes of it. */
interface Piece {
  readonly memory: MappedMemory;
  readonly length: bigint;
}

/** A request, whatever its struct. */
type AnyAsk = Pick<Ask<unknown>, 'argument' | 'context' | 'host'>;

/** The flags of a MAP, MAP_FILE or COPY, and numbers of theirs that must not be the last u64. */
function checkFlags(name: string, flags: number, numbers: readonly bigint[]): void {
  if ((flags & ~(ACCESS | IOMMU_IOAS_MAP_FIXED_IOVA)) !== 0) throw refuse('EOPNOTSUPP', `${name}: flags ${flags}`);
  if (numbers.includes(U64 - 1n)) throw refuse('EOVERFLOW', `${name}: a number is the last one`);
  if ((flags & ACCESS) === 0) throw refuse('EINVAL', `${name}: neither to be read nor to be written`);
}

/** What devices may do with memory. */
interface Access {
  readonly writable: boolean;
  readonly readable: boolean;
}

const accessIn = (flags: number): Access => ({
  writable: (flags & IOMMU_IOAS_MAP_WRITEABLE) !== 0,
  readable: (flags & IOMMU_IOAS_MAP_READABLE) !== 0,
});

/** `IOMMU_IOAS_MAP`. */
export function map({ cmd, respond, ...ask }: Ask<Values<typeof abi.iommu_ioas_map.fields>>): void {
  const { flags, user_va, length, iova } = cmd;
  if (cmd.reserved !== 0) throw refuse('EOPNOTSUPP', 'IOMMU_IOAS_MAP: reserved');
  checkFlags('IOMMU_IOAS_MAP', flags, [iova, length]);
  const ioas = objectOf(ask.context, 'ioas', cmd.ioas_id);
  const memory = { vaddr: user_va, length, ...accessIn(flags) };
  mapMemory('IOMMU_IOAS_MAP', ask, ioas, memory, flags, iova, (at) => respond({ iova: at }));
}

/**
 * Maps memory of the caller's. A BAR of a device is none, though it is mapped there: it has no pages to be pinned, which Linux finds out
 * once there is a page table (drivers/iommu/iommufd/pages.c: pfn_reader_user_pin).
 */
export function mapMemory(
  name: string,
  ask: AnyAsk,
  ioas: Ioas,
  { vaddr, length, writable, readable }: Access & { readonly vaddr: bigint; readonly length: bigint },
  flags: number,
  wanted: bigint,
  tell: (iova: bigint) => void,
): void {
  if (length === 0n) throw refuse('EINVAL', `${name}: no bytes`);
  if (vaddr + length > U64) throw refuse('EOVERFLOW', `${name}: the memory wraps`);
  const memory = { ...ask.host.mapper(), vaddr, writable, readable };
  insert(name, ask, ioas, [{ memory, length }], flags, wanted, (at) => {
    if (ask.host.hasBar(vaddr, length)) throw refuse('EFAULT', `${name}: at 0x${vaddr.toString(16)} is a BAR`);
    tell(at);
  });
}

/** `IOMMU_IOAS_MAP_FILE` (Linux 6.13): memory by its file, whoever has it mapped, or nobody. */
export function mapFile({ cmd, respond, ...ask }: Ask<Values<typeof abi.iommu_ioas_map_file.fields>>): void {
  const { flags, fd, start, length, iova } = cmd;
  checkFlags('IOMMU_IOAS_MAP_FILE', flags, [iova, length]);
  const ioas = objectOf(ask.context, 'ioas', cmd.ioas_id);
  const { size, writable: mayWrite, ...owner } = ask.host.fileOf(fd);
  const access = accessIn(flags);
  const text = `IOMMU_IOAS_MAP_FILE: ${length} bytes at ${start} of descriptor ${fd}`;
  if (length === 0n) throw refuse('EINVAL', text);
  if (start + length > U64) throw refuse('EOVERFLOW', `${text} wrap`);
  if (start + length > size) throw refuse('EINVAL', `${text}, which has ${size}`);
  if (access.writable && !mayWrite) throw refuse('EPERM', `${text}, which is open to be read`);
  const memory = { ...owner, vaddr: start, ...access };
  insert('IOMMU_IOAS_MAP_FILE', ask, ioas, [{ memory, length }], flags, iova, (at) => respond({ iova: at }));
}

/** `IOMMU_IOAS_COPY`: the same memory once more, of whatever is mapped in a range without a hole. */
export function copy({ cmd, respond, ...ask }: Ask<Values<typeof abi.iommu_ioas_copy.fields>>): void {
  const { flags, length, src_iova, dst_iova } = cmd;
  checkFlags('IOMMU_IOAS_COPY', flags, [length, src_iova, dst_iova]);
  const { context, host } = ask;
  const from = objectOf(context, 'ioas', cmd.src_ioas_id);
  const text = `IOMMU_IOAS_COPY: ${length} bytes at 0x${src_iova.toString(16)}`;
  if (length === 0n) throw refuse('EINVAL', text);
  if (src_iova + length > U64) throw refuse('EOVERFLOW', `${text} wrap`);
  const key = keyOf(context, from.id);
  if (!host.mappings.covers(key, src_iova, length)) throw refuse('ENOENT', `${text} are not all mapped`);
  const to = objectOf(context, 'ioas', cmd.dst_ioas_id);
  const access = accessIn(flags);
  const pieces = host.mappings.within(key, src_iova, length).map(({ iova, size, ...memory }): Piece => {
    const begin = iova > src_iova ? iova : src_iova;
    const end = iova + size < src_iova + length ? iova + size : src_iova + length;
    if (access.writable && !memory.writable) throw refuse('EPERM', `${text} are mapped to be read`);
    return { memory: { ...memory, vaddr: memory.vaddr + (begin - iova), ...access }, length: end - begin };
  });
  insert('IOMMU_IOAS_COPY', ask, to, pieces, flags, dst_iova, (at) => respond({ dst_iova: at }));
}

/** Maps pieces one behind the other, where the caller says or where there is room. `tell` says where, before anything is mapped. */
function insert(
  name: string,
  { argument, context, host }: AnyAsk,
  ioas: Ioas,
  pieces: readonly Piece[],
  flags: number,
  wanted: bigint,
  tell: (iova: bigint) => void,
): void {
  const alignment = alignmentOf(context, ioas, host.pageSize);
  const key = keyOf(context, ioas.id);
  const end = endOf(context, ioas);
  const length = pieces.reduce((sum, piece) => sum + piece.length, 0n);
  const first = pieces[0]?.memory.vaddr ?? 0n;
  if ((length & (alignment - 1n)) !== 0n) throw refuse('EINVAL', `${name}: ${length} bytes are no whole pages`);
  const isFixed = (flags & IOMMU_IOAS_MAP_FIXED_IOVA) !== 0;
  const { mappings, pageSize } = host;
  // served again, it is where it was put the first time
  const iova = isFixed
    ? wanted
    : (mappings.madeBy(key, argument.id) ?? freeIova({ mappings, key, end, pageSize, alignment }, ioas, first, length));
  const text = `${name}: ${length} bytes at 0x${iova.toString(16)}`;
  if ((iova & (alignment - 1n)) !== 0n) throw refuse('EINVAL', `${text} do not begin at a page`);
  if (iova + length > U64) throw refuse('EOVERFLOW', `${text} wrap`);
  if (iova + length > end) throw refuse('EINVAL', `${text} are reserved`);
  if (mappings.within(key, iova, length).length > 0 && mappings.madeBy(key, argument.id) !== iova) {
    throw refuse('EEXIST', `${text} are mapped already`);
  }
  if (pieces.some(({ memory }) => (memory.vaddr & (alignment - 1n)) !== 0n)) {
    throw refuse('EINVAL', `${text}: the memory does not begin at a page`);
  }
  if (mappings.available < pieces.length) throw refuse('ENOMEM', `${text}: too many mappings`);
  tell(iova);
  let at = iova;
  for (const piece of pieces) {
    mappings.map(key, at, piece.length, argument.id, piece.memory);
    at += piece.length;
  }
}

/** `IOMMU_IOAS_UNMAP`: whole mappings, and at least one; or all, if there is any. */
export function unmap({
  argument,
  cmd,
  context,
  host,
  respond,
}: Ask<Values<typeof abi.iommu_ioas_unmap.fields>>): void {
  const { iova, length } = cmd;
  const key = keyOf(context, objectOf(context, 'ioas', cmd.ioas_id).id);
  const { mappings } = host;
  const text = `IOMMU_IOAS_UNMAP: ${length} bytes at 0x${iova.toString(16)}`;
  if (iova === 0n && length === U64 - 1n) {
    respond({}); // it can be answered
    respond({ length: mappings.unmapAll(key, argument.id) });
    return;
  }
  if (iova === U64 - 1n || length === U64 - 1n) throw refuse('EOVERFLOW', text);
  if (length === 0n) throw refuse('EINVAL', text);
  if (iova + length > U64) throw refuse('EOVERFLOW', `${text} wrap`);
  checkWhole(text, mappings, key, iova, length);
  respond({});
  const bytes = mappings.unmap(key, iova, length, argument.id);
  if (bytes === 0n) throw refuse('ENOENT', `${text}: nothing is mapped there`);
  respond({ length: bytes });
}

/** Throws `ENOENT` if a range would cut a mapping. */
export function checkWhole(text: string, mappings: DmaMappings, key: bigint, iova: bigint, length: bigint): void {
  try {
    mappings.checkWhole(key, iova, length);
  } catch (error) {
    if (hasErrno(error, 'EINVAL')) throw refuse('ENOENT', `${text} would split a mapping`);
    throw error;
  }
}

/** `IOMMU_IOAS_IOVA_RANGES`: one, as the emulated IOMMU has no hole. */
export function iovaRanges({
  argument,
  cmd,
  context,
  host,
  respond,
}: Ask<Values<typeof abi.iommu_ioas_iova_ranges.fields>>): void {
  if (cmd.reserved !== 0) throw refuse('EOPNOTSUPP', 'IOMMU_IOAS_IOVA_RANGES: reserved');
  const ioas = objectOf(context, 'ioas', cmd.ioas_id);
  const range = abi.iommu_iova_range.encode({ start: 0n, last: endOf(context, ioas) - 1n });
  if (cmd.num_iovas > 0) argument.writeAt(cmd.allowed_iovas, range);
  respond({ num_iovas: 1, out_iova_alignment: alignmentOf(context, ioas, host.pageSize) });
  if (cmd.num_iovas === 0) throw refuse('EMSGSIZE', 'IOMMU_IOAS_IOVA_RANGES: there is 1');
}

/** `IOMMU_IOAS_ALLOW_IOVAS`: replaces the ranges in which addresses are chosen, and which no device may narrow. */
export function allowIovas({
  argument,
  cmd,
  context,
  host,
}: Ask<Values<typeof abi.iommu_ioas_allow_iovas.fields>>): void {
  if (cmd.reserved !== 0) throw refuse('EOPNOTSUPP', 'IOMMU_IOAS_ALLOW_IOVAS: reserved');
  const ioas = objectOf(context, 'ioas', cmd.ioas_id);
  host.checkRoom(0, cmd.num_iovas - ioas.allowed.length);
  const struct = abi.iommu_iova_range;
  const ranges: { start: bigint; last: bigint }[] = [];
  for (let n = 0; n < cmd.num_iovas; n += 1) {
    const range = struct.decode(argument.readAt(cmd.allowed_iovas + BigInt(n * struct.size), struct.size));
    const overlaps = ranges.some(({ start, last }) => start <= range.last && range.start <= last);
    if (range.start >= range.last || overlaps) throw refuse('EINVAL', `IOMMU_IOAS_ALLOW_IOVAS: range ${n}`);
    ranges.push(range);
  }
  const end = endOf(context, ioas);
  if (ranges.some(({ last }) => last >= end)) throw refuse('EADDRINUSE', 'IOMMU_IOAS_ALLOW_IOVAS: a range is reserved');
  ranges.sort((a, b) => (a.start < b.start ? -1 : 1));
  ioas.allowed = ranges.map(({ start, last }) => [`0x${start.toString(16)}`, `0x${last.toString(16)}`] as const);
}
