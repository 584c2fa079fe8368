import { mapping, MAPPING_STRIDE, MAX_MAPPINGS, REMOVED, type MappedMemory, type Mapping } from './mapping.ts';
import { refuse } from './refuse.ts';

interface Entry extends Mapping {
  readonly place: number;
}

/** Of a mapping that nobody writes to. */
const NO_MEMORY: MappedMemory = { process: 0n, program: 0n, vaddr: 0n, writable: false };

/**
 * The DMA mappings of all containers: what type1 checks when a VMM maps and unmaps (drivers/vfio/vfio_iommu_type1.c,
 * Linux 6.12), and where a device that writes to memory finds it.
 */
export class DmaMappings {
  readonly #memory: Uint8Array;
  readonly #byContainer = new Map<bigint, Entry[]>();
  readonly #free: number[] = [];
  /** The bytes that each request had removed when this process took over, which may have to serve one of them again. */
  readonly #removedBefore = new Map<bigint, bigint>();
  #end = 0;

  constructor(memory: Uint8Array) {
    this.#memory = memory;
    for (let place = 0; place < MAX_MAPPINGS; place += 1) {
      const { iova, size, container, request, ...behind } = mapping.decode(memory, place * MAPPING_STRIDE);
      if (container === 0n) break;
      if ((container & REMOVED) !== 0n) {
        this.#free.push(place);
        if (request !== 0n) this.#removedBefore.set(request, (this.#removedBefore.get(request) ?? 0n) + size);
      } else {
        const { writable, write_only, lost, ...memory } = behind;
        const access = { writable: writable === 1, readable: write_only === 0, lost: lost === 1 };
        this.#insert(container, { iova, size, place, ...memory, ...access });
      }
      this.#end = place + 1;
    }
    for (const list of this.#byContainer.values()) this.#endCuts(list);
  }

  /** How many more mappings are allowed. */
  get available(): number {
    return MAX_MAPPINGS - this.#end + this.#free.length;
  }

  /** Throws `EEXIST` if the range overlaps a mapping, `ENOSPC` if there are too many. */
  map(container: bigint, iova: bigint, size: bigint, request: bigint, memory: MappedMemory = NO_MEMORY): void {
    const list = this.#list(container);
    const at = firstEndingAfter(list, iova);
    const next = list[at];
    if (next !== undefined && next.iova < iova + size) {
      const same = mapping.decode(this.#memory, next.place * MAPPING_STRIDE);
      if (same.request === request && same.iova === iova && same.size === size) return;
      throw refuse('EEXIST', `VFIO_IOMMU_MAP_DMA: 0x${iova.toString(16)} is mapped already`);
    }
    const place = this.#free.pop() ?? this.#end;
    if (place >= MAX_MAPPINGS) throw refuse('ENOSPC', `VFIO_IOMMU_MAP_DMA: ${MAX_MAPPINGS} mappings are the limit`);
    this.#end = Math.max(this.#end, place + 1);
    const made = { ...memory, iova, size, place, lost: false };
    this.#write(container, made, request);
    list.splice(at, 0, made);
  }

  #write(container: bigint, made: Entry, request: bigint): void {
    const entry = this.#view(made.place);
    entry.iova = made.iova;
    entry.size = made.size;
    entry.request = request;
    entry.vaddr = made.vaddr;
    entry.process = made.process;
    entry.program = made.program;
    entry.writable = made.writable ? 1 : 0;
    entry.write_only = made.readable === false ? 1 : 0;
    entry.lost = made.lost ? 1 : 0;
    entry.file = made.file ?? 0;
    entry.container = container;
  }

  /**
   * Gives up the addresses of the mappings within a range, which stay, and returns their bytes. Throws `EINVAL`, with nothing given up, if
   * the range would cut a mapping, or one has none already.
   */
  loseAddresses(container: bigint, iova: bigint, size: bigint, request: bigint): bigint {
    const [from, to] = this.#within(container, iova, size);
    const list = this.#list(container);
    const entries = list.slice(from, to);
    if (entries.some(({ lost, place }) => lost && this.#view(place).request !== request)) {
      throw refuse('EINVAL', 'VFIO_IOMMU_UNMAP_DMA: a mapping has no address already');
    }
    for (const [n, old] of entries.entries()) {
      const entry = this.#view(old.place);
      entry.request = request; // first: who serves it again finds that it was this one
      entry.lost = 1;
      list[from + n] = { ...old, lost: true };
    }
    return entries.reduce((bytes, entry) => bytes + entry.size, 0n);
  }

  /**
   * Gives a mapping that has lost its address another, of whoever asks. Throws `ENOENT` if nothing is mapped in the range, `EINVAL` if it is
   * not one mapping's, or that one has an address.
   */
  giveAddress(
    container: bigint,
    iova: bigint,
    size: bigint,
    request: bigint,
    { vaddr, process, program }: Omit<MappedMemory, 'writable'>,
  ): void {
    const list = this.#list(container);
    const at = firstEndingAfter(list, iova);
    const old = list[at];
    if (old === undefined || old.iova >= iova + size) {
      throw refuse('ENOENT', `VFIO_IOMMU_MAP_DMA: nothing is mapped at 0x${iova.toString(16)}`);
    }
    const entry = this.#view(old.place);
    if (old.iova !== iova || old.size !== size || (!old.lost && entry.request !== request)) {
      throw refuse('EINVAL', `VFIO_IOMMU_MAP_DMA: no mapping of ${size} bytes waits for an address`);
    }
    entry.request = request;
    entry.vaddr = vaddr;
    entry.process = process;
    entry.program = program;
    entry.lost = 0;
    list[at] = { ...old, vaddr, process, program, lost: false };
  }

  has(container: bigint): boolean {
    return (this.#byContainer.get(container)?.length ?? 0) > 0;
  }

  /** The mapping that has an address, if one has. */
  at(container: bigint, iova: bigint): Mapping | undefined {
    const list = this.#byContainer.get(container) ?? [];
    const entry = list[firstEndingAfter(list, iova)];
    return entry !== undefined && entry.iova <= iova ? entry : undefined;
  }

  /** The largest mapping of a container that devices may write to; the first of several. */
  largestWritable(container: bigint): Mapping | undefined {
    let largest: Mapping | undefined;
    for (const entry of this.#byContainer.get(container) ?? []) {
      if (entry.writable && (largest === undefined || entry.size > largest.size)) largest = entry;
    }
    return largest;
  }

  /** The mappings of a container that have an address of a range, in the order of their addresses. */
  within(container: bigint, iova: bigint, size: bigint): readonly Mapping[] {
    const list = this.#byContainer.get(container) ?? [];
    const from = firstEndingAfter(list, iova);
    const found: Mapping[] = [];
    for (let n = from; n < list.length; n += 1) {
      const entry = list[n];
      if (entry === undefined || entry.iova >= iova + size) break;
      found.push(entry);
    }
    return found;
  }

  /** The lowest address of what a request has mapped, which is served again; `undefined` if it has not come so far. */
  madeBy(container: bigint, request: bigint): bigint | undefined {
    const list = this.#byContainer.get(container) ?? [];
    return list.find(({ place }) => this.#view(place).request === request)?.iova;
  }

  /** Every address of a range is mapped. */
  covers(container: bigint, iova: bigint, size: bigint): boolean {
    let at = iova;
    for (const entry of this.within(container, iova, size)) {
      if (entry.iova > at) return false;
      at = entry.iova + entry.size;
    }
    return at >= iova + size;
  }

  /** A mapping of a container has an address beyond `last`. */
  endsBeyond(container: bigint, last: bigint): boolean {
    const end = this.#byContainer.get(container)?.at(-1);
    return end !== undefined && end.iova + end.size - 1n > last;
  }

  /** All mappings of a container are whole pages, of addresses and of memory. */
  areWhole(container: bigint, pageSize: bigint): boolean {
    const list = this.#byContainer.get(container) ?? [];
    return list.every(({ iova, size, vaddr }) => ((iova | size | vaddr) & (pageSize - 1n)) === 0n);
  }

  /** Makes two mappings of one that has an address within it: the second begins there. Throws `ENOMEM` if there are too many. */
  cut(container: bigint, at: bigint): void {
    const list = this.#list(container);
    const n = firstEndingAfter(list, at);
    const whole = list[n];
    if (whole === undefined || whole.iova >= at) return;
    const place = this.#free.pop() ?? this.#end;
    if (place >= MAX_MAPPINGS) throw refuse('ENOMEM', `DMA mappings: ${MAX_MAPPINGS} are the limit`);
    this.#end = Math.max(this.#end, place + 1);
    const size = at - whole.iova;
    const rest = { ...whole, place, iova: at, size: whole.size - size, vaddr: whole.vaddr + size };
    // while both are there, the first is too long: whoever takes over in between shortens it
    this.#write(container, rest, 0n);
    this.#view(whole.place).size = size;
    list.splice(n, 1, { ...whole, size }, rest);
  }

  /** Ends what a predecessor has begun to cut. */
  #endCuts(list: Entry[]): void {
    list.sort((a, b) => (a.iova < b.iova ? -1 : 1));
    for (const [n, entry] of list.entries()) {
      const next = list[n + 1];
      if (next === undefined || entry.iova + entry.size <= next.iova) continue;
      const size = next.iova - entry.iova;
      this.#view(entry.place).size = size;
      list[n] = { ...entry, size };
    }
  }

  /** Removes the mappings within a range and returns their bytes. Throws `EINVAL` if the range would cut one. */
  unmap(container: bigint, iova: bigint, size: bigint, request: bigint): bigint {
    const [from, to] = this.#within(container, iova, size);
    return this.#remove(this.#list(container).splice(from, to - from), request);
  }

  /** Throws `EINVAL` if a range would cut a mapping. */
  checkWhole(container: bigint, iova: bigint, size: bigint): void {
    this.#within(container, iova, size);
  }

  /** Removes all mappings of a container and returns their bytes; `request` is 0 if none asked for it. */
  unmapAll(container: bigint, request: bigint): bigint {
    const list = this.#list(container);
    this.#byContainer.delete(container);
    return this.#remove(list, request);
  }

  /** Returns the bytes that the request has removed, those of an attempt that was cut off included. */
  #remove(entries: readonly Entry[], request: bigint): bigint {
    let bytes = this.#removedBefore.get(request) ?? 0n;
    for (const { place, size } of entries) {
      const entry = this.#view(place);
      entry.request = request;
      entry.container |= REMOVED;
      this.#free.push(place);
      bytes += size;
    }
    return bytes;
  }

  #view(place: number): ReturnType<typeof mapping.view> {
    return mapping.view(this.#memory, place * MAPPING_STRIDE);
  }

  /** The places, in a container's list, of the mappings within a range: the first, and behind the last. */
  #within(container: bigint, iova: bigint, size: bigint): [from: number, to: number] {
    const list = this.#list(container);
    const from = firstEndingAfter(list, iova);
    let to = from;
    for (; to < list.length; to += 1) {
      const entry = list[to];
      if (entry === undefined || entry.iova >= iova + size) break;
      if (entry.iova < iova || entry.iova + entry.size > iova + size) {
        throw refuse('EINVAL', `DMA mappings: ${size} bytes at 0x${iova.toString(16)} would split a mapping`);
      }
    }
    return [from, to];
  }

  #list(container: bigint): Entry[] {
    let list = this.#byContainer.get(container);
    if (list === undefined) {
      list = [];
      this.#byContainer.set(container, list);
    }
    return list;
  }

  #insert(container: bigint, entry: Entry): void {
    const list = this.#list(container);
    list.splice(firstEndingAfter(list, entry.iova), 0, entry);
  }
}

/** The place of the first mapping that does not end before `iova`, in a list that is sorted by address. */
function firstEndingAfter(list: readonly Entry[], iova: bigint): number {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const entry = list[middle];
    if (entry !== undefined && entry.iova + entry.size <= iova) low = middle + 1;
    else high = middle;
  }
  return low;
}
