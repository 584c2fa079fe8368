import { vfio_device_migration_info } from '../abi/vfio-v1.ts';
import { ShimError } from '../error.ts';
import type { V1Device } from './device.ts';
import { isV1State, v1StateName, withoutReserved, type V1State } from './states.ts';

/** The user's side of the region: the registers of a V1Device as typed values, checked as another party's numbers. */
export class V1RegisterAccess {
  readonly #device: V1Device;
  readonly #u32 = new Uint8Array(4);
  readonly #u64 = new Uint8Array(8);
  readonly #u32View = new DataView(this.#u32.buffer);
  readonly #u64View = new DataView(this.#u64.buffer);

  constructor(device: V1Device) {
    this.#device = device;
  }

  /** Throws `EIO` for a value that v1 gives no meaning to. */
  deviceState(): V1State {
    return this.stateOf(this.rawDeviceState());
  }

  /** The state of a value of rawDeviceState(), as deviceState(). */
  stateOf(found: number): V1State {
    const state = withoutReserved(found);
    if (isV1State(state)) return state;
    throw new ShimError('ERR_STATE_UNKNOWN', `device_state: the driver shows ${v1StateName(state)}`, { errno: 'EIO' });
  }

  /** Writes the state bits and keeps the reserved ones: one read and one write. */
  setDeviceState(state: number): void {
    this.changeDeviceState(() => state);
  }

  /** As setDeviceState(), with new state bits that depend on those found. */
  changeDeviceState(change: (state: number) => number): void {
    const found = this.rawDeviceState();
    this.writeDeviceState(found, change(withoutReserved(found)));
  }

  /** Writes the state bits, with the reserved ones of a value that was read before. */
  writeDeviceState(found: number, state: number): void {
    this.#u32View.setUint32(0, found - withoutReserved(found) + state, true);
    this.#device.write(offsetOf.device_state, this.#u32);
  }

  /** At most 2^53-1: drivers that do not know how much is left say 2^64-1. */
  pendingBytes(): number {
    this.#device.read(offsetOf.pending_bytes, this.#u64);
    return Math.min(Number(this.#u64View.getBigUint64(0, true)), Number.MAX_SAFE_INTEGER);
  }

  /** The buffer that the driver shows: within the region, checked. A size of 0 is "none now". */
  dataBuffer(): { readonly offset: number; readonly size: number } {
    const offset = this.#count('data_offset');
    const size = this.#count('data_size');
    const { regionSize } = this.#device;
    if (size > 0 && (offset < vfio_device_migration_info.size || size > regionSize - offset)) {
      throw new ShimError(
        'ERR_DEVICE',
        `v1 driver: shows ${size} bytes at ${offset} of a region of ${regionSize} bytes`,
        { errno: 'EIO' },
      );
    }
    return { offset, size };
  }

  /** Where the next transaction's data belongs while resuming, and how much of it fits. */
  dataSpace(): { readonly offset: number; readonly size: number } {
    const offset = this.#count('data_offset');
    const { regionSize, dataSection } = this.#device;
    const end = offset >= dataSection.offset ? dataSection.offset + dataSection.size : regionSize;
    if (offset < vfio_device_migration_info.size || offset >= end) {
      throw new ShimError('ERR_DEVICE', `v1 driver: wants data at ${offset} of a region of ${regionSize} bytes`, {
        errno: 'EIO',
      });
    }
    return { offset, size: end - offset };
  }

  /** Writes data_size: of the buffer at the data section, which the driver then loads. */
  setDataSize(size: number): void {
    this.#u64View.setBigUint64(0, BigInt(size), true);
    this.#device.write(offsetOf.data_size, this.#u64);
  }

  /** device_state with its reserved bits. */
  rawDeviceState(): number {
    this.#device.read(offsetOf.device_state, this.#u32);
    return this.#u32View.getUint32(0, true);
  }

  #count(register: 'data_offset' | 'data_size'): number {
    this.#device.read(offsetOf[register], this.#u64);
    const value = this.#u64View.getBigUint64(0, true);
    if (value <= Number.MAX_SAFE_INTEGER) return Number(value);
    throw new ShimError('ERR_DEVICE', `v1 driver: ${register} is ${value}`, { errno: 'EIO' });
  }
}

const { fields } = vfio_device_migration_info;
const offsetOf = {
  device_state: fields.device_state[1],
  pending_bytes: fields.pending_bytes[1],
  data_offset: fields.data_offset[1],
  data_size: fields.data_size[1],
} as const;
