import type { ErrnoName } from '../../src/abi/errno.ts';
import {
  VFIO_REGION_INFO_FLAG_CAPS,
  vfio_device_info,
  vfio_region_info,
  vfio_region_info_cap_sparse_mmap,
  vfio_region_info_cap_type,
  vfio_region_sparse_mmap_area,
} from '../../src/abi/vfio-device.ts';
import {
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MASK,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
} from '../../src/abi/vfio-v2.ts';
import { ShimError } from '../../src/error.ts';
import type { V2DataSession } from '../../src/v2/device.ts';
import type { DataSessions, Pointed, RegionPlace, VfioPort } from '../../src/vfio/port.ts';

/** What a driver says about one region. */
export interface FakeRegion {
  readonly size: bigint;
  readonly flags?: number;
  readonly offset?: bigint;
  /** The capability chain, whose first begins behind the struct, at 32. */
  readonly caps?: Uint8Array;
  /** Where the driver says that the chain begins, and how much room it says that it needs; the truth if it is not given. */
  readonly capOffset?: number;
  readonly argsz?: number;
}

export interface FakeFeature {
  /** Fills in or takes the data, and what it points to, or throws. */
  get?(data: Uint8Array, pointed?: Uint8Array): void;
  set?(data: Uint8Array, pointed?: Uint8Array): void;
}

/**
 * A device that answers requests as a driver would, or as none may: bytes in the place of its regions, tables in the place of what it
 * can do. It records what it was asked.
 */
export class BytePort implements VfioPort {
  pageSize = 4096;
  regions = new Map<number, FakeRegion>();
  features = new Map<number, FakeFeature>();
  /** What regions' offsets are places in. */
  readonly memory: Uint8Array;
  /** Those of the process that asks. */
  sessions: DataSessions;
  /** Answers a request before all else, by the name of its ioctl or call; false leaves it to the rest. */
  answer: ((request: string, argument: Uint8Array) => boolean) | undefined;
  regionCount: number | undefined;
  readonly asked: string[] = [];

  constructor(memory = new Uint8Array(0), sessions: DataSessions = new ByteSessions(memory)) {
    this.memory = memory;
    this.sessions = sessions;
  }

  getInfo(argument: Uint8Array): void {
    if (!this.#answered('VFIO_DEVICE_GET_INFO', argument)) this.#info(argument);
  }

  getRegionInfo(argument: Uint8Array): void {
    if (!this.#answered('VFIO_DEVICE_GET_REGION_INFO', argument)) this.#region(argument);
  }

  feature(what: string, argument: Uint8Array, pointed?: Pointed): void {
    this.asked.push(what);
    if (this.answer?.('VFIO_DEVICE_FEATURE', argument) !== true) this.#feature(argument, pointed?.bytes);
  }

  reset(): void {
    if (!this.#answered('VFIO_DEVICE_RESET', new Uint8Array(0))) throw failed('ENOTTY');
  }

  read({ offset }: RegionPlace, at: number, into: Uint8Array): number {
    if (this.#answered('pread64', into)) return into.length;
    const begin = Number(offset) + at;
    const part = this.memory.subarray(begin, begin + into.length);
    into.set(part);
    return part.length;
  }

  write({ offset }: RegionPlace, at: number, from: Uint8Array): number {
    if (this.#answered('pwrite64', from)) return from.length;
    const part = this.memory.subarray(Number(offset) + at);
    part.set(from.subarray(0, part.length));
    return Math.min(from.length, part.length);
  }

  /** Maps for as long as a call takes, if a test says so. */
  withMap?: (region: RegionPlace, at: number, size: number, use: (bytes: Uint8Array) => void) => void;

  map({ offset }: RegionPlace, at: number, size: number): Uint8Array {
    const begin = Number(offset) + at;
    return this.memory.subarray(begin, begin + size);
  }

  #answered(request: string, argument: Uint8Array): boolean {
    this.asked.push(request);
    return this.answer?.(request, argument) === true;
  }

  #info(bytes: Uint8Array): void {
    const last = Math.max(-1, ...this.regions.keys());
    vfio_device_info.encode(
      { argsz: bytes.length, flags: 3, num_regions: this.regionCount ?? last + 1, num_irqs: 5 },
      bytes,
    );
  }

  #region(bytes: Uint8Array): void {
    const { index } = vfio_region_info.decode(bytes);
    const region = this.regions.get(index);
    if (region === undefined) throw failed('EINVAL');
    const { size, flags = 3, offset = BigInt(index) << 40n, caps, capOffset, argsz } = region;
    const needed = argsz ?? vfio_region_info.size + (caps?.length ?? 0);
    const fits = caps !== undefined && bytes.length >= vfio_region_info.size + caps.length;
    if (fits) bytes.set(caps, vfio_region_info.size);
    vfio_region_info.encode(
      {
        argsz: needed,
        index,
        size,
        offset,
        flags: caps === undefined ? flags : flags | VFIO_REGION_INFO_FLAG_CAPS,
        cap_offset: fits ? (capOffset ?? vfio_region_info.size) : 0,
      },
      bytes,
    );
  }

  #feature(bytes: Uint8Array, pointed: Uint8Array | undefined): void {
    const { flags } = vfio_device_feature.decode(bytes);
    const feature = this.features.get(flags & VFIO_DEVICE_FEATURE_MASK);
    if (feature === undefined) throw failed('ENOTTY');
    const operations = [
      [VFIO_DEVICE_FEATURE_GET, feature.get],
      [VFIO_DEVICE_FEATURE_SET, feature.set],
    ] as const;
    for (const [flag, operation] of operations) {
      if ((flags & flag) === 0) continue;
      if (operation === undefined) throw failed('EINVAL');
      if ((flags & VFIO_DEVICE_FEATURE_PROBE) === 0) operation(bytes.subarray(vfio_device_feature.size), pointed);
    }
  }
}

/** Sessions over bytes: what is read comes from them, what is written is let go. */
export class ByteSessions implements DataSessions {
  readonly #data: Uint8Array;
  #session: V2DataSession | undefined;

  constructor(data: Uint8Array) {
    this.#data = data;
  }

  change<T>(request: () => T): T {
    return request();
  }

  begin(): V2DataSession {
    this.end();
    const begun = new ByteSession(this.#data);
    this.#session = begun;
    return begun;
  }

  current(): V2DataSession | undefined {
    return this.#session;
  }

  end(): void {
    this.#session?.close();
    this.#session = undefined;
  }
}

class ByteSession implements V2DataSession {
  #rest: Uint8Array | undefined;

  constructor(data: Uint8Array) {
    this.#rest = data;
  }

  read(into: Uint8Array): number {
    const rest = this.#open();
    const part = rest.subarray(0, into.length);
    into.set(part);
    this.#rest = rest.subarray(part.length);
    return part.length;
  }

  write(from: Uint8Array): number {
    this.#open();
    return from.length;
  }

  precopyInfo(): { initialBytes: number; dirtyBytes: number } {
    return { initialBytes: this.#open().length, dirtyBytes: 0 };
  }

  close(): void {
    this.#rest = undefined;
  }

  #open(): Uint8Array {
    if (this.#rest === undefined) throw failed('ENODEV');
    return this.#rest;
  }
}

export function failed(errno: ErrnoName): ShimError {
  return new ShimError('ERR_SYSCALL', `VFIO: ioctl failed with ${errno}`, { errno, syscall: 'ioctl' });
}

/** A TYPE capability; `next` counts from the struct, as in the kernel. */
export function typeCap(type: number, subtype: number, next = 0): Uint8Array {
  return vfio_region_info_cap_type.encode({ id: 2, version: 1, next, type, subtype });
}

/** A SPARSE_MMAP capability; `claimed` is how many areas it says it has. */
export function sparseCap(
  areas: readonly { offset: bigint; size: bigint }[],
  next = 0,
  claimed: number = areas.length,
): Uint8Array {
  const size = vfio_region_sparse_mmap_area.size;
  const bytes = new Uint8Array(vfio_region_info_cap_sparse_mmap.size + areas.length * size);
  vfio_region_info_cap_sparse_mmap.encode({ id: 1, version: 1, next, nr_areas: claimed }, bytes);
  areas.forEach((area, n) =>
    vfio_region_sparse_mmap_area.encode(area, bytes, vfio_region_info_cap_sparse_mmap.size + n * size),
  );
  return bytes;
}

/** A u64 feature that can be asked for. */
export const u64 = (value: bigint): FakeFeature => ({
  get: (data) => new DataView(data.buffer, data.byteOffset).setBigUint64(0, value, true),
});
