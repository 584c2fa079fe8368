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
  /** The driver allows to map the data section: then it may have no other way to its data (NVIDIA's has none). */
  readonly #isMappable: boolean;

  /**
   * `map`: maps the data section if the driver allows it, once. That keeps the device open until this process ends; otherwise it is
   * mapped for each access, if the carrier can do that.
   */
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
    const isAligned = area !== undefined && area.offset % port.pageSize === 0 && area.size % port.pageSize === 0;
    this.#isMappable = isAligned && (region.flags & VFIO_REGION_INFO_FLAG_MMAP) !== 0;
    if (map && area !== undefined && this.#isMappable) this.mapped = port.map?.(region, area.offset, area.size);
  }

  read(offset: number, into: Uint8Array): void {
    const part = this.#mappedPart(offset, into.length);
    if (part !== undefined) into.set(part);
    else if (!this.#withPart(offset, into.length, (bytes) => into.set(bytes))) this.#access('read', offset, into);
  }

  write(offset: number, from: Uint8Array): void {
    const part = this.#mappedPart(offset, from.length);
    if (part !== undefined) part.set(from);
    else if (!this.#withPart(offset, from.length, (bytes) => bytes.set(from))) this.#access('write', offset, from);
  }

  #mappedPart(offset: number, length: number): Uint8Array | undefined {
    const at = offset - this.dataSection.offset;
    const { mapped } = this;
    return mapped !== undefined && at >= 0 && at + length <= mapped.length
      ? mapped.subarray(at, at + length)
      : undefined;
  }

  /** Maps what an access of the data section is about, for as long as that takes. False if it cannot be. */
  #withPart(offset: number, length: number, use: (bytes: Uint8Array) => void): boolean {
    const { offset: begin, size } = this.dataSection;
    if (!this.#isMappable || this.#port.withMap === undefined || length === 0) return false;
    if (offset < begin || offset + length > begin + size) return false;
    const { pageSize } = this.#port;
    const at = offset - (offset % pageSize);
    const end = Math.ceil((offset + length) / pageSize) * pageSize;
    this.#port.withMap(this.#region, at, end - at, (bytes) => use(bytes.subarray(offset - at, offset - at + length)));
    return true;
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
