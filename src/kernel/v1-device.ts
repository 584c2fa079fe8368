import { VFIO_DEVICE_RESET } from '../abi/vfio-ioctl.ts';
import { VFIO_REGION_INFO_FLAG_MMAP } from '../abi/vfio-device.ts';
import { vfio_device_migration_info } from '../abi/vfio-v1.ts';
import { ShimError } from '../error.ts';
import { ioctlValue } from '../sys/ioctl.ts';
import { addressOf, trySyscall } from '../sys/libc.ts';
import { mapSharedMemory } from '../sys/memory.ts';
import type { V1Device } from '../v1/device.ts';
import type { RegionInfo } from './device-info.ts';
import { dataError, deviceError } from './errors.ts';
import type { DeviceHandle } from './handle.ts';

const PAGE = 4096;

/** A device of the kernel whose driver has a v1 migration region. */
export class KernelV1Device implements V1Device {
  readonly regionSize: number;
  readonly dataSection: { readonly offset: number; readonly size: number };
  readonly mapped: Uint8Array | undefined;
  readonly #device: DeviceHandle;
  readonly #offset: bigint;

  /** `map`: map the data section where the driver allows it. That keeps the device open until this process ends. */
  constructor(device: DeviceHandle, region: RegionInfo, map: boolean) {
    this.#device = device;
    this.#offset = region.offset;
    this.regionSize = region.size;
    const area = region.sparse?.find(({ offset, size }) => offset + size <= region.size && size > 0);
    const begin = region.size > PAGE ? PAGE : vfio_device_migration_info.size;
    if (region.size <= vfio_device_migration_info.size) {
      throw new ShimError('ERR_DEVICE', `v1 driver: a migration region of ${region.size} bytes has no data section`, {
        errno: 'EIO',
      });
    }
    this.dataSection = area ?? { offset: begin, size: region.size - begin };
    const mappable = area !== undefined && (region.flags & VFIO_REGION_INFO_FLAG_MMAP) !== 0;
    if (map && mappable) {
      this.mapped = mapSharedMemory(device.number, area.size, region.offset + BigInt(area.offset)).bytes;
    }
  }

  read(offset: number, into: Uint8Array): void {
    const part = this.#mappedPart(offset, into.length);
    if (part === undefined) this.#access('pread64', offset, into);
    else into.set(part);
  }

  write(offset: number, from: Uint8Array): void {
    const part = this.#mappedPart(offset, from.length);
    if (part === undefined) this.#access('pwrite64', offset, from);
    else part.set(from);
  }

  #mappedPart(offset: number, length: number): Uint8Array | undefined {
    const at = offset - this.dataSection.offset;
    const { mapped } = this;
    return mapped !== undefined && at >= 0 && at + length <= mapped.length
      ? mapped.subarray(at, at + length)
      : undefined;
  }

  reset(): void {
    try {
      ioctlValue(this.#device.number, 'VFIO_DEVICE_RESET', VFIO_DEVICE_RESET);
    } catch (error) {
      throw deviceError('VFIO_DEVICE_RESET', error);
    }
  }

  /** Registers are accessed at once; of the data section, a driver may take or give less than was asked for. */
  #access(call: 'pread64' | 'pwrite64', offset: number, bytes: Uint8Array): void {
    if (offset < 0 || bytes.length > this.regionSize - offset) {
      throw new ShimError('ERR_ACCESS', `migration region: ${bytes.length} bytes at ${offset} of ${this.regionSize}`, {
        errno: 'EINVAL',
      });
    }
    for (let done = 0; done < bytes.length;) {
      const rest = bytes.subarray(done);
      // SAFETY: `bytes` stays referenced during the call; its length is its own
      const at = this.#offset + BigInt(offset + done);
      const result = trySyscall(call, this.#device.number, addressOf(rest), rest.length, at);
      if (result < 0) throw dataError(call, -result);
      if (result === 0 || result > rest.length) {
        throw new ShimError('ERR_DEVICE', `v1 driver: ${call} of ${rest.length} bytes returned ${result}`, {
          errno: 'EIO',
        });
      }
      done += result;
    }
  }
}
