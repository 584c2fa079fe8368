import { fieldWidth, type FieldKind } from '../../abi/struct.ts';
import { vfio_device_migration_info_2018, vfio_device_migration_info_2019 } from '../../abi/vfio-drafts.ts';
import { ShimError } from '../../error.ts';
import type { Draft, DraftDevice } from './device.ts';

/** The registers of November 2018, by the names of the patch. */
export type Register2018 = keyof typeof vfio_device_migration_info_2018.fields;
/** The registers of February 2019, by the names of the patch. */
export type Register2019 = keyof typeof vfio_device_migration_info_2019.fields;
/** The registers of a draft. */
export type RegisterOf<D extends Draft> = D extends 'draft-2018' ? Register2018 : Register2019;
/** A register of either draft. */
export type DraftRegister = Register2018 | Register2019;

interface Place {
  readonly name: DraftRegister;
  readonly offset: number;
  readonly width: 4 | 8;
}

/** The registers of a draft: a field of its struct each, at the field's offset, which need not be a multiple of its width. */
class RegisterTable {
  /** Bytes of the struct. */
  readonly size: number;
  readonly #byOffset: ReadonlyMap<number, Place>;
  readonly #byName: ReadonlyMap<DraftRegister, Place>;

  constructor(size: number, fields: Readonly<Record<string, readonly [FieldKind, number]>>) {
    const places = Object.entries(fields).map(([name, [kind, offset]]): Place => {
      return { name: name as DraftRegister, offset, width: fieldWidth(kind) === 4 ? 4 : 8 };
    });
    this.size = size;
    this.#byOffset = new Map(places.map((place) => [place.offset, place]));
    this.#byName = new Map(places.map((place) => [place.name, place]));
  }

  /** The register that begins at an offset, whatever its width. */
  beginningAt(offset: number): Place | undefined {
    return this.#byOffset.get(offset);
  }

  /** The register that an access is to; `undefined` if it is to none, or to one that has another width. */
  at(offset: number, length: number): DraftRegister | undefined {
    const place = this.#byOffset.get(offset);
    return place?.width === length ? place.name : undefined;
  }

  placeOf(name: DraftRegister): Place {
    const place = this.#byName.get(name);
    if (place === undefined) throw new RangeError(`migration region: no register ${name}`);
    return place;
  }
}

export const draftRegisters: Readonly<Record<Draft, RegisterTable>> = {
  'draft-2018': new RegisterTable(vfio_device_migration_info_2018.size, vfio_device_migration_info_2018.fields),
  'draft-2019': new RegisterTable(vfio_device_migration_info_2019.size, vfio_device_migration_info_2019.fields),
};

/** A register's value in its bytes, little endian. */
export function valueIn(bytes: Uint8Array): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return bytes.length === 4 ? BigInt(view.getUint32(0, true)) : view.getBigUint64(0, true);
}

/** Puts a value into a register's bytes. */
export function putValue(into: Uint8Array, value: bigint): void {
  const view = new DataView(into.buffer, into.byteOffset, into.length);
  if (into.length === 4) view.setUint32(0, Number(value), true);
  else view.setBigUint64(0, value, true);
}

/** The user's side of a draft's region: registers as values, checked as another party's numbers. */
export class DraftAccess<D extends Draft> {
  readonly #device: DraftDevice;
  readonly #bytes = { 4: new Uint8Array(4), 8: new Uint8Array(8) } as const;

  /** Throws `ERR_ARGUMENT` for a device of another generation. */
  constructor(device: DraftDevice, draft: D) {
    if (device.draft !== draft) {
      throw new ShimError('ERR_ARGUMENT', `draft: the device speaks ${device.draft}, not ${draft}`, {
        errno: 'EINVAL',
      });
    }
    this.#device = device;
  }

  /** The value of a register, as it is. */
  read(register: RegisterOf<D>): bigint {
    const { offset, width } = draftRegisters[this.#device.draft].placeOf(register);
    const bytes = this.#bytes[width];
    this.#device.read(offset, bytes);
    return valueIn(bytes);
  }

  /** A number of bytes or pages. Throws `EIO` for one that no device has. */
  count(register: RegisterOf<D>): number {
    const value = this.read(register);
    if (value <= Number.MAX_SAFE_INTEGER) return Number(value);
    throw new ShimError('ERR_DEVICE', `${this.#device.draft} driver: ${register} is ${value}`, { errno: 'EIO' });
  }

  /** A number of bytes of which only its order counts: beyond 2^53-1 it is 2^53-1. */
  estimate(register: RegisterOf<D>): number {
    const value = this.read(register);
    return value <= Number.MAX_SAFE_INTEGER ? Number(value) : Number.MAX_SAFE_INTEGER;
  }

  /** Writes a register, in its own width. */
  write(register: RegisterOf<D>, value: number | bigint): void {
    const { offset, width } = draftRegisters[this.#device.draft].placeOf(register);
    const bytes = this.#bytes[width];
    putValue(bytes, BigInt(value));
    this.#device.write(offset, bytes);
  }

  /** Bytes that the driver shows, in the data section. Throws `EIO` if they do not lie there. */
  shown(offset: number, size: number): Uint8Array {
    const { dataSection, mapped, draft } = this.#device;
    const at = offset - dataSection.offset;
    if (at >= 0 && at <= mapped.length && size <= mapped.length - at) return mapped.subarray(at, at + size);
    throw new ShimError(
      'ERR_DEVICE',
      `${draft} driver: shows ${size} bytes at ${offset}, the data section has ${dataSection.size} at ${dataSection.offset}`,
      { errno: 'EIO' },
    );
  }
}
