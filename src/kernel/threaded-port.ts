import { vfio_device_migration_info } from '../abi/vfio-v1.ts';
import { ShimError } from '../error.ts';
import { syscallError } from '../sys/libc.ts';
import { PollSet } from '../sys/poll.ts';
import type { Caller } from '../vfio/caller.ts';
import type { DataSessions, Pointed, RegionPlace, VfioPort } from '../vfio/port.ts';
import type { Access, Accessed, Accessor } from './access-thread.ts';
import type { DeviceHandle } from './handle.ts';

export interface ThreadedOptions {
  readonly caller: () => Caller;
  /** Whether there are others whom this device would hold up. */
  readonly hasOthers: () => boolean;
  readonly makeAccessor: () => Accessor;
  /** Milliseconds. */
  readonly clock?: () => number;
}

/** An access that has ended before whoever is told has asked again. */
interface Kept extends Accessed {
  readonly access: Access;
}

/** What was read for a call, which is repeated from its beginning: in this order, and how much of it the present attempt has come by. */
interface Reads {
  readonly kept: Kept[];
  next: number;
}

/** Of so many calls that wait for one device what was read is kept. Those that are not repeated end so. */
const CALLS = 8;

/** To have another thread make an access costs so much in the beginning, in milliseconds; then what was measured. */
const COST = 0.1;
/** An access is made by the thread if it takes so many times what that costs: others have that time. */
const WORTH = 2;
/** What the thread has cost is believed a little less with each access that was not made by it: it may have been the machine's worst moment. */
const FORGETTING = 0.95;
/** How much the latest measurement counts. */
const LATEST = 0.25;

const { pending_bytes, data_offset, data_size } = vfio_device_migration_info.fields;

/**
 * A device with a v1 driver that may take its time to say what it has, or to load what it got: then a thread waits for it, the access
 * is "not yet" (`underWay`), and whoever repeats it gets its result. So several devices work at the same time, as they do for a VMM that
 * has a thread for each. Which accesses take long is found by measuring them. Only those of the loop over the data are made so: a
 * state is changed, and data is copied, while everybody waits. One access of a device is made after the other.
 */
export class ThreadedPort implements VfioPort {
  readonly pageSize: number;
  readonly sessions: DataSessions;
  readonly map?: NonNullable<VfioPort['map']>;
  readonly withMap?: NonNullable<VfioPort['withMap']>;
  readonly #port: VfioPort;
  readonly #device: DeviceHandle;
  readonly #options: ThreadedOptions;
  readonly #clock: () => number;
  /** Milliseconds that an access takes, by what it accesses. */
  readonly #takes = new Map<string, number>();
  #cost = COST;
  #accessor: Accessor | undefined;
  /** The thread has started: that is no part of what an access costs. */
  #hasThread = false;
  #underWay:
    | { readonly what: string; readonly access: Access; readonly caller: bigint; readonly begin: number }
    | undefined;
  /** By the call that asked. */
  readonly #reads = new Map<bigint, Reads>();
  /** That something was written is for whoever would write the same next. */
  #written: Kept | undefined;

  constructor(port: VfioPort, device: DeviceHandle, options: ThreadedOptions) {
    this.#port = port;
    this.#device = device;
    this.#options = options;
    this.#clock = options.clock ?? (() => performance.now());
    this.pageSize = port.pageSize;
    this.sessions = port.sessions;
    if (port.map !== undefined) this.map = port.map.bind(port);
    const withMap = port.withMap?.bind(port);
    if (withMap === undefined) return;
    this.withMap = (...what) => {
      this.#settle(options.caller());
      withMap(...what);
    };
  }

  getInfo(argument: Uint8Array): void {
    this.#port.getInfo(argument);
  }

  getRegionInfo(argument: Uint8Array): void {
    this.#port.getRegionInfo(argument);
  }

  feature(what: string, argument: Uint8Array, pointed?: Pointed): void {
    this.#port.feature(what, argument, pointed);
  }

  reset(): void {
    this.#waitForEnd();
    this.#forget();
    this.#port.reset();
  }

  #forget(): void {
    this.#reads.clear();
    this.#written = undefined;
  }

  read(region: RegionPlace, at: number, into: Uint8Array): number {
    return this.#access('read', region, at, into);
  }

  write(region: RegionPlace, at: number, from: Uint8Array): number {
    return this.#access('write', region, at, from);
  }

  #access(call: Access['call'], region: RegionPlace, at: number, bytes: Uint8Array): number {
    const caller = this.#options.caller();
    this.#settle(caller);
    if (!isOfTheLoop(call, at, bytes.length)) {
      if (call === 'write') this.#forget();
      return this.#port[call](region, at, bytes);
    }
    const position = region.offset + BigInt(at);
    const access = { call, position: Number(position), bytes };
    const kept = this.#take(access, caller);
    if (kept !== undefined) return tell(kept, bytes);
    const what = `${call} ${at}`;
    const takes = this.#takes.get(what) ?? 0;
    const isSlow = takes > WORTH * this.#cost && position <= Number.MAX_SAFE_INTEGER;
    if (!isSlow && takes > COST) this.#cost *= FORGETTING;
    if (!isSlow || caller === undefined || !this.#options.hasOthers()) {
      const begin = this.#clock();
      try {
        return this.#port[call](region, at, bytes);
      } finally {
        this.#measured(what, this.#clock() - begin);
      }
    }
    if (caller === 'ahead') throw notYet();
    this.#begin(what, { ...access, bytes: bytes.slice() }, caller);
    throw this.#isUnderWay(caller);
  }

  #begin(what: string, access: Access, caller: bigint): void {
    this.#accessor ??= this.#options.makeAccessor();
    this.#accessor.begin(this.#device.number, access);
    this.#underWay = { what, access, caller, begin: this.#clock() };
  }

  /** Until the access that is under way has ended nothing else is asked of the driver: it would wait too, and we with it. */
  #settle(caller: Caller): void {
    if (this.#underWay === undefined || this.#keep()) return;
    if (caller === 'ahead') throw notYet();
    if (caller !== undefined) throw this.#isUnderWay(caller);
    this.#waitForEnd();
  }

  #waitForEnd(): void {
    const readiness = this.#accessor?.readiness;
    if (readiness === undefined) return;
    const poll = new PollSet(1);
    while (this.#underWay !== undefined && !this.#keep()) {
      poll.set(0, readiness.fd, readiness.events);
      poll.wait(1);
    }
  }

  /** Keeps what the access that was under way has come to; false if it still is. */
  #keep(): boolean {
    const ended = this.#accessor?.end();
    const underWay = this.#underWay;
    if (ended === undefined || underWay === undefined) return false;
    const { what, access, caller, begin } = underWay;
    this.#underWay = undefined;
    this.#measured(what, ended.took);
    if (this.#hasThread) this.#cost = mean(this.#cost, Math.max(0, this.#clock() - begin - ended.took));
    this.#hasThread = true;
    const kept = { ...ended, access };
    if (access.call === 'write') this.#written = kept;
    else this.#readsOf(caller).kept.push(kept);
    return true;
  }

  #readsOf(caller: bigint): Reads {
    let reads = this.#reads.get(caller);
    if (reads === undefined) {
      const [oldest] = this.#reads.keys();
      if (oldest !== undefined && this.#reads.size === CALLS) this.#reads.delete(oldest);
      reads = { kept: [], next: 0 };
      this.#reads.set(caller, reads);
    }
    return reads;
  }

  /** What an access has come to that was made for the asking. A write makes what was read before it old. */
  #take({ call, position, bytes }: Access, caller: Caller): Kept | undefined {
    const isSame = ({ access }: Kept): boolean => access.position === position && access.bytes.length === bytes.length;
    if (call === 'read') {
      const reads = typeof caller === 'bigint' ? this.#reads.get(caller) : undefined;
      if (reads === undefined) return undefined;
      const at = reads.kept.findIndex((kept, n) => n >= reads.next && isSame(kept));
      if (at < 0) return undefined;
      reads.next = at + 1;
      return reads.kept[at];
    }
    const written = this.#written;
    this.#forget();
    const wasWritten = written !== undefined && isSame(written) && Buffer.compare(written.access.bytes, bytes) === 0;
    return wasWritten ? written : undefined;
  }

  #measured(what: string, took: number): void {
    const before = this.#takes.get(what);
    this.#takes.set(what, before === undefined ? took : mean(before, took));
  }

  /** Ends the call's attempt. */
  #isUnderWay(caller: bigint): ShimError {
    const reads = this.#reads.get(caller);
    if (reads !== undefined) reads.next = 0;
    return notYet({ underWay: true, ...(this.#accessor && { readiness: this.#accessor.readiness }) });
  }
}

/** Reads of pending_bytes, data_offset and data_size, and writes of data_size. */
function isOfTheLoop(call: Access['call'], at: number, length: number): boolean {
  if (length !== 8) return false;
  return at === data_size[1] || (call === 'read' && (at === pending_bytes[1] || at === data_offset[1]));
}

function mean(before: number, latest: number): number {
  return before + (latest - before) * LATEST;
}

function notYet(details: ConstructorParameters<typeof ShimError>[2] = {}): ShimError {
  return new ShimError('ERR_NO_DATA_YET', 'v1 driver: the access is under way', { errno: 'EAGAIN', ...details });
}

/** As the port would have. */
function tell({ access: { call }, result, bytes }: Kept, into: Uint8Array): number {
  if (result < 0) throw syscallError('migration region', call === 'read' ? 'pread64' : 'pwrite64', -result);
  if (call === 'read') into.set(bytes);
  return result;
}
