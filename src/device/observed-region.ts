import type { ErrnoName } from '../abi/errno.ts';
import { vfio_device_migration_info } from '../abi/vfio-v1.ts';
import { errnoNameOf } from '../error.ts';
import type { V1Device } from '../v1/device.ts';
import type { Draft, DraftDevice } from '../v1/drafts/device.ts';
import { draftRegisters, type DraftRegister } from '../v1/drafts/registers.ts';
import { registerAt, type V1RegisterName } from '../v1/region.ts';
import type { RegionEvent } from './device-event.ts';

/** A device whose user has a migration region of it. */
interface RegionDevice {
  readonly regionSize: number;
  readonly dataSection: { readonly offset: number; readonly size: number };
  read(offset: number, into: Uint8Array): void;
  write(offset: number, from: Uint8Array): void;
  reset(): void;
}

/** Whose region it is, and which registers begin it. */
interface Registers<P extends 'v1' | Draft, R extends string> {
  readonly protocol: P;
  readonly size: number;
  readonly at: (offset: number, length: number) => R | undefined;
}

const v1Registers: Registers<'v1', V1RegisterName> = {
  protocol: 'v1',
  size: vfio_device_migration_info.size,
  at: registerAt,
};

type RegionSink<P extends 'v1' | Draft, R extends string> = (event: RegionEvent<P, R>, bytes?: Uint8Array) => void;

/** A device that tells of each access to its region, and of each reset. */
class ObservedRegion<D extends RegionDevice, P extends 'v1' | Draft, R extends string> {
  readonly regionSize: number;
  readonly dataSection: D['dataSection'];
  protected readonly device: D;
  readonly #registers: Registers<P, R>;
  readonly #sink: RegionSink<P, R>;
  readonly #clock: () => number;

  constructor(device: D, registers: Registers<P, R>, sink: RegionSink<P, R>, clock: () => number) {
    this.regionSize = device.regionSize;
    this.dataSection = device.dataSection;
    this.device = device;
    this.#registers = registers;
    this.#sink = sink;
    this.#clock = clock;
  }

  read(offset: number, into: Uint8Array): void {
    try {
      this.device.read(offset, into);
    } catch (error) {
      this.#sink(accessEvent(this.#registers, this.#clock(), 'read', offset, into, errnoNameOf(error)));
      throw error;
    }
    this.#moved('read', offset, into);
  }

  write(offset: number, from: Uint8Array): void {
    try {
      this.device.write(offset, from);
    } catch (error) {
      this.#sink(accessEvent(this.#registers, this.#clock(), 'write', offset, from, errnoNameOf(error)));
      throw error;
    }
    this.#moved('write', offset, from);
  }

  #moved(access: 'read' | 'write', offset: number, bytes: Uint8Array): void {
    const event = accessEvent(this.#registers, this.#clock(), access, offset, bytes);
    this.#sink(event, event.call === 'data' ? bytes : undefined);
  }

  reset(): void {
    const { protocol } = this.#registers;
    try {
      this.device.reset();
    } catch (error) {
      this.#sink({ time: this.#clock(), protocol, call: 'reset', errno: errnoNameOf(error) });
      throw error;
    }
    this.#sink({ time: this.#clock(), protocol, call: 'reset' });
  }
}

/** A v1 device that is watched. */
export class ObservedV1 extends ObservedRegion<V1Device, 'v1', V1RegisterName> implements V1Device {
  readonly readAhead: V1Device['readAhead'];

  constructor(device: V1Device, sink: RegionSink<'v1', V1RegisterName>, clock: () => number) {
    super(device, v1Registers, sink, clock);
    this.readAhead = device.readAhead && (() => device.readAhead?.());
  }

  get mapped(): Uint8Array | undefined {
    return this.device.mapped;
  }
}

/** A draft's device that is watched. */
export class ObservedDraft extends ObservedRegion<DraftDevice, Draft, DraftRegister> implements DraftDevice {
  readonly draft: Draft;

  constructor(device: DraftDevice, sink: RegionSink<Draft, DraftRegister>, clock: () => number) {
    const table = draftRegisters[device.draft];
    super(
      device,
      { protocol: device.draft, size: table.size, at: (offset, length) => table.at(offset, length) },
      sink,
      clock,
    );
    this.draft = device.draft;
  }

  get mapped(): Uint8Array {
    return this.device.mapped;
  }
}

/** An access to a migration region of v1, as a device that is watched tells it. `bytes`: what was read or written, or was to be. */
export function v1AccessEvent(
  time: number,
  access: 'read' | 'write',
  offset: number,
  bytes: Uint8Array,
  errno?: ErrnoName,
): RegionEvent<'v1', V1RegisterName> {
  return accessEvent(v1Registers, time, access, offset, bytes, errno);
}

function accessEvent<P extends 'v1' | Draft, R extends string>(
  { protocol, size, at }: Registers<P, R>,
  time: number,
  access: 'read' | 'write',
  offset: number,
  bytes: Uint8Array,
  errno?: ErrnoName,
): RegionEvent<P, R> {
  const register = at(offset, bytes.length);
  const ended = errno === undefined ? undefined : { errno };
  if (register !== undefined) {
    // of all calls the one that is made most: no object is spread for it
    if (ended === undefined) return { time, protocol, call: 'register', access, register, value: valueOf(bytes) };
    if (access === 'read') return { time, protocol, call: 'register', access, register, ...ended };
    return { time, protocol, call: 'register', access, register, value: valueOf(bytes), ...ended };
  }
  const place = { offset, bytes: bytes.length };
  if (offset < size) return { time, protocol, call: 'other', access, ...place, ...ended };
  return { time, protocol, call: 'data', direction: access === 'read' ? 'out' : 'in', ...place, ...ended };
}

function valueOf(bytes: Uint8Array): number {
  const low = u32(bytes, 0);
  if (bytes.length === 4) return low;
  return Math.min(u32(bytes, 4) * 2 ** 32 + low, Number.MAX_SAFE_INTEGER);
}

/** Little endian, a byte at a time, as V1Region does it: no view has to be made for a few bytes. */
function u32(bytes: Uint8Array, at: number): number {
  return (
    (byte(bytes, at) | (byte(bytes, at + 1) << 8) | (byte(bytes, at + 2) << 16) | (byte(bytes, at + 3) << 24)) >>> 0
  );
}

function byte(bytes: Uint8Array, at: number): number {
  return bytes[at] ?? 0;
}
