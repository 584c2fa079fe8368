import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_RESET,
} from '../abi/vfio-ioctl.ts';
import { ioctl, ioctlValue } from '../sys/ioctl.ts';
import { addressOf, PAGE_SIZE, syscallError, trySyscall, withAddress } from '../sys/libc.ts';
import { mapSharedMemory, withSharedMemory } from '../sys/memory.ts';
import type { DataSessions, Pointed, RegionPlace, VfioPort } from '../vfio/port.ts';
import { FdSessions } from './fd-sessions.ts';
import type { DeviceHandle } from './handle.ts';

/** A device of the kernel, by its descriptor: ioctl for requests, pread, pwrite and mmap for regions. */
export class FdPort implements VfioPort {
  readonly pageSize = PAGE_SIZE;
  readonly sessions: DataSessions;
  readonly #device: DeviceHandle;

  constructor(device: DeviceHandle, sessions: DataSessions = new FdSessions()) {
    this.#device = device;
    this.sessions = sessions;
  }

  getInfo(argument: Uint8Array): void {
    ioctl(this.#device.number, 'VFIO_DEVICE_GET_INFO', VFIO_DEVICE_GET_INFO, argument);
  }

  getRegionInfo(argument: Uint8Array): void {
    ioctl(this.#device.number, 'VFIO_DEVICE_GET_REGION_INFO', VFIO_DEVICE_GET_REGION_INFO, argument);
  }

  feature(what: string, argument: Uint8Array, pointed?: Pointed): void {
    if (pointed !== undefined) {
      // SAFETY: ioctl() gets the bytes as well, and references them until the call has returned
      const address = BigInt(addressOf(pointed.bytes));
      new DataView(argument.buffer, argument.byteOffset).setBigUint64(pointed.at, address, true);
    }
    const pointedTo = pointed === undefined ? [] : [pointed.bytes];
    ioctl(this.#device.number, `VFIO_DEVICE_FEATURE ${what}`, VFIO_DEVICE_FEATURE, argument, pointedTo);
  }

  reset(): void {
    ioctlValue(this.#device.number, 'VFIO_DEVICE_RESET', VFIO_DEVICE_RESET);
  }

  read(region: RegionPlace, at: number, into: Uint8Array): number {
    return this.#access('pread64', region, at, into);
  }

  write(region: RegionPlace, at: number, from: Uint8Array): number {
    return this.#access('pwrite64', region, at, from);
  }

  map({ offset }: RegionPlace, at: number, size: number): Uint8Array {
    return mapSharedMemory(this.#device.number, size, offset + BigInt(at)).bytes;
  }

  withMap({ offset }: RegionPlace, at: number, size: number, use: (bytes: Uint8Array) => void): void {
    withSharedMemory(this.#device.number, size, offset + BigInt(at), use);
  }

  #access(call: 'pread64' | 'pwrite64', { index, offset }: RegionPlace, at: number, bytes: Uint8Array): number {
    const { number } = this.#device;
    // SAFETY: the length is that of `bytes`
    const moved = withAddress(bytes, (from) => trySyscall(call, number, from, bytes.length, offset + BigInt(at)));
    if (moved < 0) throw syscallError(`region ${index}`, call, -moved);
    return moved;
  }
}
