import type { ErrnoName } from '../abi/errno.ts';
import { vfio_device_migration_info } from '../abi/vfio-v1.ts';
import { errnoNameOf } from '../error.ts';
import type { V1Device } from '../v1/device.ts';
import { registerAt } from '../v1/region.ts';
import type { V1Event } from './device-event.ts';

/** A v1 device that tells of each access to its region, and of each reset. */
export class ObservedV1 implements V1Device {
  readonly regionSize: number;
  readonly dataSection: V1Device['dataSection'];
  readonly #device: V1Device;
  readonly #sink: (event: V1Event) => void;
  readonly #clock: () => number;

  constructor(device: V1Device, sink: (event: V1Event) => void, clock: () => number) {
    this.regionSize = device.regionSize;
    this.dataSection = device.dataSection;
    this.#device = device;
    this.#sink = sink;
    this.#clock = clock;
  }

  get mapped(): Uint8Array | undefined {
    return this.#device.mapped;
  }

  read(offset: number, into: Uint8Array): void {
    try {
      this.#device.read(offset, into);
    } catch (error) {
      this.#sink(accessEvent(this.#clock(), 'read', offset, into, errnoNameOf(error)));
      throw error;
    }
    this.#sink(accessEvent(this.#clock(), 'read', offset, into));
  }

  write(offset: number, from: Uint8Array): void {
    try {
      this.#device.write(offset, from);
    } catch (error) {
      this.#sink(accessEvent(this.#clock(), 'write', offset, from, errnoNameOf(error)));
      throw error;
    }
    this.#sink(accessEvent(this.#clock(), 'write', offset, from));
  }

  reset(): void {
    try {
      this.#device.reset();
    } catch (error) {
      this.#sink({ time: this.#clock(), protocol: 'v1', call: 'reset', errno: errnoNameOf(error) });
      throw error;
    }
    this.#sink({ time: this.#clock(), protocol: 'v1', call: 'reset' });
  }
}

function accessEvent(
  time: number,
  access: 'read' | 'write',
  offset: number,
  bytes: Uint8Array,
  errno?: ErrnoName,
): V1Event {
  const register = registerAt(offset, bytes.length);
  const ended = errno === undefined ? undefined : { errno };
  if (register !== undefined) {
    if (access === 'write') {
      return { time, protocol: 'v1', call: 'register', access, register, value: valueOf(bytes), ...ended };
    }
    const found = ended ?? { value: valueOf(bytes) };
    return { time, protocol: 'v1', call: 'register', access, register, ...found };
  }
  const place = { offset, bytes: bytes.length };
  if (offset < vfio_device_migration_info.size) {
    return { time, protocol: 'v1', call: 'other', access, ...place, ...ended };
  }
  return { time, protocol: 'v1', call: 'data', direction: access === 'read' ? 'out' : 'in', ...place, ...ended };
}

function valueOf(bytes: Uint8Array): number {
  const low = u32(bytes, 0);
  if (bytes.length === 4) return low;
  return Math.min(u32(bytes, 4) * 2 ** 32 + low, Number.MAX_SAFE_INTEGER);
}

/** Little endian, a byte at a time, as V1Region does it: no view has to be made for a few bytes. */
function u32(bytes: Uint8Array, at: number): number {
  const [b0 = 0, b1 = 0, b2 = 0, b3 = 0] = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
  return (b0 | (b1 << 8) | (b2 << 16) | (b3 << 24)) >>> 0;
}
