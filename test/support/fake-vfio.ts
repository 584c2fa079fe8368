import type { ErrnoName } from '../../src/abi/errno.ts';
import {
  VFIO_REGION_INFO_FLAG_CAPS,
  vfio_device_info,
  vfio_region_info,
  vfio_region_info_cap_sparse_mmap,
  vfio_region_info_cap_type,
  vfio_region_sparse_mmap_area,
} from '../../src/abi/vfio-device.ts';
import { VFIO_DEVICE_FEATURE, VFIO_DEVICE_GET_INFO, VFIO_DEVICE_GET_REGION_INFO } from '../../src/abi/vfio-ioctl.ts';
import {
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MASK,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
} from '../../src/abi/vfio-v2.ts';
import { ShimError } from '../../src/error.ts';

/** What a driver says about one region. */
export interface FakeRegion {
  readonly size: bigint;
  readonly flags?: number;
  readonly offset?: bigint;
  /** The capability chain, whose first begins behind the struct, at 32. */
  readonly caps?: Uint8Array;
  /** What the driver says where the chain begins, and how much room it needs; otherwise the truth. */
  readonly capOffset?: number;
  readonly argsz?: number;
}

export interface FakeFeature {
  /** Fills in or takes the data, or throws. */
  get?(data: Uint8Array): void;
  set?(data: Uint8Array): void;
}

/** A device behind src/sys/ioctl.ts: answers as a driver would, or as none may. */
export class FakeVfio {
  regions = new Map<number, FakeRegion>();
  features = new Map<number, FakeFeature>();
  /** Answers any ioctl before all else; `undefined` leaves it to the rest. */
  answer: ((fd: number, request: number, argument: Uint8Array | number) => number | undefined) | undefined;
  regionCount: number | undefined;
  readonly asked: string[] = [];

  readonly ioctl = (fd: number, name: string, request: number, argument: Uint8Array): number => {
    this.asked.push(name);
    const answered = this.answer?.(fd, request, argument);
    if (answered !== undefined) return answered;
    if (request === VFIO_DEVICE_GET_INFO) this.#info(argument);
    else if (request === VFIO_DEVICE_GET_REGION_INFO) this.#region(argument);
    else if (request === VFIO_DEVICE_FEATURE) this.#feature(argument);
    else throw failed('ENOTTY');
    return 0;
  };

  readonly ioctlValue = (fd: number, name: string, request: number, argument = 0): number => {
    this.asked.push(name);
    const answered = this.answer?.(fd, request, argument);
    if (answered === undefined) throw failed('ENOTTY');
    return answered;
  };

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

  #feature(bytes: Uint8Array): void {
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
      if ((flags & VFIO_DEVICE_FEATURE_PROBE) === 0) operation(bytes.subarray(vfio_device_feature.size));
    }
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
