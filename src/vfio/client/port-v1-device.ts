import { VFIO_REGION_INFO_FLAG_MMAP } from '../../abi/vfio-device.ts';
import { vfio_device_migration_info } from '../../abi/vfio-v1.ts';
import { ShimError } from '../../error.ts';
import type { V1Device } from '../../v1/device.ts';
import type { VfioPort } from '../port.ts';
import type { RegionInfo } from './device-info.ts';
import { dataError, deviceError } from './errors.ts';

/** A device behind a port whose driver has a v1 migration region. */
export class PortV1Device implements V1Device {
  readonly regionSize: number;
  readonly dataSection: { readonly offset: number; readonly size: number };
  readonly mapped: Uint8Array | undefined;
  readonly #port: VfioPort;
  readonly #region: RegionInfo;

  /** `map`: maps the data section if the driver allows it. That keeps the device open until this process ends. */
  constructor(port: VfioPort, region: RegionInfo, map: boolean) {
    this.#port = port;
    this.#region = region;
    this.regionSize = region.size;
    const area = region.sparse?.find(({ offset, size }) => offset + size <= region.size && size > 0);
    const begin = vfio_device_migration_info.size; // without areas, the driver may show data anywhere behind its registers
    if (region.size <= begin) {
      throw new ShimError('ERR_DEVICE', `v1 driver: a migration region of ${region.size} bytes has no data section`, {
        errno: 'EIO',
      });
    }
    this.dataSection = area ?? { offset: begin, size: region.size - begin };
    const mappable = area !== undefined && (region.flags & VFIO_REGION_INFO_FLAG_MMAP) !== 0;
    if (map && mappable) this.mapped = port.map?.(region, area.offset, area.size);
  }

  read(offset: number, into: Uint8Array): void {
    const part = this.#mappedPart(offset, into.length);
    if (part === undefined) this.#access('read', offset, into);
    else into.set(part);
  }

  write(offset: number, from: Uint8Array): void {
    const part = this.#mappedPart(offset, from.length);
    if (part === undefined) this.#access('write', offset, from);
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
      this.#port.reset();
    } catch (error) {
      throw deviceError('VFIO_DEVICE_RESET', error);
    }
  }

  /** Repeats the access for the rest: of the data section, a driver may take or give less than was asked for. */
  #access(call: 'read' | 'write', offset: number, bytes: Uint8Array): void {
    if (offset < 0 || bytes.length > this.regionSize - offset) {
      throw new ShimError('ERR_ACCESS', `migration region: ${bytes.length} bytes at ${offset} of ${this.regionSize}`, {
        errno: 'EINVAL',
      });
    }
    for (let done = 0; done < bytes.length;) {
      const rest = bytes.subarray(done);
      const moved = this.#move(call, offset + done, rest);
      if (moved === 0 || moved > rest.length) {
        throw new ShimError('ERR_DEVICE', `v1 driver: ${call} of ${rest.length} bytes returned ${moved}`, {
          errno: 'EIO',
        });
      }
      done += moved;
    }
  }

  #move(call: 'read' | 'write', at: number, bytes: Uint8Array): number {
    try {
      return this.#port[call](this.#region, at, bytes);
    } catch (error) {
      if (!(error instanceof ShimError) || error.code !== 'ERR_SYSCALL' || error.errno === undefined) throw error;
      throw dataError(error.syscall ?? call, error.errno);
    }
  }
}
