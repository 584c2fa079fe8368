import type { DirtyPages } from '../../bridge/draft-dirty.ts';
import type { MigratableDevice } from '../../device/migratable.ts';
import {
  defaultWindow,
  DMA_PAGE,
  dma_record,
  dmaPage,
  DmaPace,
  dmaSourcePage,
  encodeDmaRecord,
} from '../../sim/dma.ts';
import type { SimSpec } from '../../sim/drivers.ts';
import { addressOf } from '../../sys/libc.ts';
import { device_log, DeviceLog } from '../../vfio/server/device-log.ts';
import type { DmaMappings } from '../../vfio/server/dma-mappings.ts';
import type { Mapping } from '../../vfio/server/mapping.ts';
import { WindowLog } from '../../vfio/server/window-log.ts';
import type { DmaMemory } from '../memory/dma-memory.ts';
import { messageOf } from '../run/log.ts';
import type { PeerCounts } from '../serve/report.ts';
import { ACCEPTING, INITIATING, stateOf } from './dma-states.ts';
import type { MappedMemoryAccess, Moved } from './mapped-processes.ts';

/** What no call tells of, as a register that the VMM writes without one, is looked at so often: in milliseconds. */
const LOOK = 20;

/** What a device may write to: a container's mappings. */
export interface DmaReach {
  readonly container: bigint;
  /** The container logs dirty pages. */
  readonly isLogging: boolean;
  readonly mappings: DmaMappings;
  /** Somebody has the device open, without whom there is no DMA. It costs some system calls to find out. */
  isOpen(): boolean;
  /** The other devices of the container that somebody has open, at the same cost. */
  peers(): readonly DmaPeer[];
}

/** A device that another one can reach. */
export interface DmaPeer {
  readonly name: string;
  readonly device: MigratableDevice;
}

/** What the DMA of a device takes. */
export interface DmaParts {
  readonly spec: SimSpec;
  /** The device's place in the run. */
  readonly place: number;
  readonly memory: DmaMemory;
  /** What is committed with the device's state. */
  readonly arena: Uint8Array;
  /** The device itself: to ask for its state is nobody's call. */
  readonly device: MigratableDevice;
  readonly isBusMaster: () => boolean;
  /** Is told of each page that was written. */
  readonly onPage?: () => void;
  readonly processes: MappedMemoryAccess;
  readonly warn: (message: string) => void;
}

/** What of a copy is awaited: where it goes to, and where it comes from. */
interface Awaited {
  readonly target: Mapping;
  readonly source: Mapping | undefined;
}

/**
 * The DMA of an emulated device, which the supervisor has it do between two calls: so the call that stops the device ends it. A write
 * is in the logs before it is made.
 *
 * Of memory whose owner is asked for it, one page is awaited at a time, while calls are answered:
 * - Whoever answers a call says so by settle() before the answer goes: if the device may not go on, it neither asks more for that page nor
 *   looks at what is answered. Once it may again, it begins that page anew.
 * - Nothing that it does overtakes what it has asked before, wanted or not.
 * - A page that the owner has been asked to write is in the logs anew each time that the device is looked at, until the owner has answered: so it is
 *   told of whatever was told of it before.
 */
export class EmulatedDma {
  /** What the container tells of this device. */
  readonly containerLog: WindowLog;
  /** What the device tells by itself. */
  readonly deviceLog: DeviceLog;
  readonly #parts: DmaParts;
  readonly #pace: DmaPace;
  /** What is written to a page: a record, and behind it what was read, if the device reads. */
  readonly #bytes = new Uint8Array(DMA_PAGE);
  readonly #bytesAt = addressOf(this.#bytes); // SAFETY: this object references it as long as it writes
  #isReading = false;
  /** Pages of a burst that are still to be written, as one is awaited. */
  #left = 0;
  #awaited: Awaited | undefined;
  /** The number of the write for which a page has been read. */
  #readFor: number | undefined;
  /** The page that an owner was asked to write. */
  #asked: { readonly page: number; readonly iova: number } | undefined;
  readonly #warned = new Set<string>();

  constructor(parts: DmaParts) {
    const { memory, arena, spec } = parts;
    this.#parts = parts;
    this.#pace = new DmaPace(spec.dma);
    this.containerLog = new WindowLog(memory.containerLog, memory.my);
    this.deviceLog = new DeviceLog(new WindowLog(memory.deviceLog, memory.my), memory.ranges, device_log.view(arena));
  }

  /** What the device wrote to others of its container, in the whole run; `undefined` if it writes to none. */
  get peerCounts(): PeerCounts | undefined {
    const { spec, memory } = this.#parts;
    if (!spec['dma-peers']) return undefined;
    return { peerWrites: memory.my.peer_writes, violations: memory.my.violations };
  }

  /** A draft's user asks for pages through the device, wherever they are. */
  get dirtyPages(): DirtyPages {
    const { deviceLog } = this;
    return {
      begin: () => {
        deviceLog.stop(); // a reset does not
        deviceLog.start([{ iova: 0n, length: 2n ** 63n }]);
      },
      end: () => deviceLog.stop(),
      readAndClear: (range, into) => deviceLog.readAndClear(range, into),
    };
  }

  /** Another user gets the device: it begins anew, and is no bus master yet. */
  opened(): void {
    this.deviceLog.stop();
    const { my } = this.#parts.memory;
    my.pages = 0;
    my.counter = 0;
    this.containerLog.clear();
    this.deviceLog.window.clear();
    this.#asked = undefined;
    this.abandon();
  }

  /** Writes what is due. Returns when there is more to do, if no call and no answer comes before. */
  work(now: number, reach: DmaReach | undefined): number {
    if (reach === undefined) return this.#rest(Number.POSITIVE_INFINITY);
    this.#noteAsked(reach);
    this.settle(now, reach);
    const until = this.#obstacle(now, reach);
    if (until !== undefined) return this.#rest(until);
    if (this.#awaited === undefined && this.#parts.processes.isOwed === true)
      return this.#rest(Number.POSITIVE_INFINITY);
    const due = this.#left > 0 ? this.#left : this.#pace.due(now);
    this.#left = 0;
    this.#awaited = undefined;
    try {
      if (due > 0 && !reach.isOpen()) return this.#rest(Number.POSITIVE_INFINITY);
      this.#write(due, reach);
    } catch (error) {
      this.#tellOnce(error);
    }
    return this.#left > 0 ? Number.POSITIVE_INFINITY : this.#pace.next(now);
  }

  #rest(until: number): number {
    this.abandon();
    this.#pace.pause();
    return until;
  }

  /** A call was made: what is awaited is not any more, if the device may not go on with it. */
  settle(now: number, reach: DmaReach): void {
    if (this.#awaited === undefined) return;
    const { target, source } = this.#awaited;
    const isThere = [target, source].every((each) => !each || reach.mappings.at(reach.container, each.iova) === each);
    if (!isThere || this.#obstacle(now, reach) !== undefined) this.abandon();
  }

  /** Nothing is awaited any more. */
  abandon(): void {
    this.#left = 0;
    this.#awaited = undefined;
    this.#readFor = undefined;
    this.#parts.processes.abandon?.();
  }

  #noteAsked(reach: DmaReach): void {
    if (this.#asked === undefined) return;
    this.#note(this.#asked.page, this.#asked.iova, reach);
    if (this.#parts.processes.isOwed !== true) this.#asked = undefined;
  }

  /** Until when the device does no DMA, if it does none now. */
  #obstacle(now: number, reach: DmaReach): number | undefined {
    if (!reach.mappings.has(reach.container)) return Number.POSITIVE_INFINITY;
    const state = stateOf(this.#parts.device);
    if (state !== undefined && !INITIATING.has(state)) return Number.POSITIVE_INFINITY;
    if (state === undefined || !this.#parts.isBusMaster()) return now + LOOK;
    return this.#parts.memory.my.pages > 0 || this.#chooseWindow(reach) ? undefined : Number.POSITIVE_INFINITY;
  }

  /** False if nothing is mapped that devices may write to. */
  #chooseWindow({ container, mappings }: DmaReach): boolean {
    const largest = mappings.largestWritable(container);
    if (largest === undefined) return false;
    const given = this.#parts.spec['dma-at'];
    const { at, size } = given ?? defaultWindow({ at: Number(largest.iova), size: Number(largest.size) });
    const { my } = this.#parts.memory;
    my.iova = at;
    my.pages = size / DMA_PAGE;
    return size > 0;
  }

  #write(count: number, reach: DmaReach): void {
    const { spec, place, processes, memory, onPage } = this.#parts;
    const { my } = memory;
    const writer = { seed: spec.seed, device: place };
    const { iova: first, pages } = my;
    const from = spec['dma-from'];
    const length = from === undefined ? dma_record.size : DMA_PAGE;
    // no state changes during a burst
    const peers = spec['dma-peers'] && count > 0 ? statesOf(reach.peers()) : [];
    for (let n = 0; n < count; n += 1) {
      const { counter } = my;
      const page = dmaPage(writer, counter, pages);
      const iova = first + page * DMA_PAGE;
      const mapping = reach.mappings.at(reach.container, BigInt(iova));
      const sourceAt = from && from.at + dmaSourcePage(counter, from.size / DMA_PAGE) * DMA_PAGE;
      const source = sourceAt === undefined ? undefined : reach.mappings.at(reach.container, BigInt(sourceAt));
      if (mapping?.lost === true || source?.lost === true) return this.abandon(); // the bus stalls until somebody has that memory again
      my.counter = counter + 1;
      if (mapping?.writable !== true) continue; // an IOMMU would not let it through
      let moved: Moved = true;
      if (sourceAt !== undefined) {
        if (source === undefined || source.readable === false) continue;
        moved = this.#read(source, sourceAt, counter);
      }
      if (moved === true) {
        this.#note(page, iova, reach);
        encodeDmaRecord(writer, counter, iova, this.#bytes);
        moved = processes.write(mapping, addressIn(mapping, iova), this.#bytesAt, length);
        if (moved === 'awaited') this.#asked = { page, iova };
      }
      if (moved === 'awaited') {
        my.counter = counter; // it is this one's turn again
        this.#left = count - n;
        this.#awaited = { target: mapping, source };
      }
      if (moved !== true) return;
      for (const peer of peers) this.#reaches(peer);
      onPage?.();
    }
  }

  /** Reads the page that is copied by the write of that number, once. */
  #read(source: Mapping, iova: number, counter: number): Moved {
    if (this.#readFor === counter) return true;
    this.#isReading = true;
    const moved = this.#parts.processes.read(source, addressIn(source, iova), this.#bytesAt, DMA_PAGE);
    this.#isReading = false;
    this.#readFor = moved === true ? counter : undefined;
    return moved;
  }

  /** A write to another device is counted and not made: that device's memory stays what its guest and its migration make it. */
  #reaches({ name, state }: PeerState): void {
    const { my } = this.#parts.memory;
    if (ACCEPTING.has(state)) {
      my.peer_writes += 1;
      return;
    }
    if (my.violations === 0) this.#parts.warn(`the device writes to ${name}, which is in ${state}`);
    my.violations += 1;
  }

  #note(page: number, iova: number, reach: DmaReach): void {
    if (this.#parts.spec['dma-log'] === 'off') return;
    if (reach.isLogging) this.containerLog.note(page);
    this.deviceLog.note(page, iova);
  }

  #tellOnce(error: unknown): void {
    const what = this.#isReading ? 'read' : 'write to';
    this.#isReading = false;
    if (this.#warned.has(what)) return;
    this.#warned.add(what);
    this.#parts.warn(`the device cannot ${what} memory that is mapped for it: ${messageOf(error)}`);
  }
}

/** Where a page is in the memory behind its mapping. */
function addressIn({ vaddr, iova: begin }: Mapping, iova: number): number {
  return Number(vaddr) + (iova - Number(begin));
}

interface PeerState {
  readonly name: string;
  readonly state: string;
}

/** Without those that do not say in which state they are. */
function statesOf(peers: readonly DmaPeer[]): PeerState[] {
  return peers.flatMap(({ name, device }) => {
    const state = stateOf(device);
    return state === undefined ? [] : [{ name, state }];
  });
}
