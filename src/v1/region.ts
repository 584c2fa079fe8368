import type { ErrnoName } from '../abi/errno.ts';
import { vfio_device_migration_info } from '../abi/vfio-v1.ts';
import { fieldWidth } from '../abi/struct.ts';
import { ShimError } from '../error.ts';
import type { V1Device } from './device.ts';

/** What stands behind the region's registers: one method per meaningful access. */
export interface V1Registers {
  /** The state bits, and whatever reserved ones the device shows: a u32. */
  readDeviceState(): number;
  /** A u32 that the user has written, reserved bits included. Throws if the driver does not take it. */
  writeDeviceState(value: number): void;
  /** The read that also says: the previous buffer was consumed. A bigint is any u64: real drivers show numbers that count nothing. */
  readPendingBytes(): number | bigint;
  /** Makes data available if there is any, and only then returns. */
  readDataOffset(): number;
  /** Bytes of the buffer that data_offset has shown; 0 if there is none now. */
  readDataSize(): number;
  /** Consumes that many bytes of the data section before it returns. */
  writeDataSize(size: number): void;
  /** As V1Device.reset(). */
  reset(): void;
  /** As V1Device.readAhead(). */
  readAhead?(): void;
}

/** A data section that is not simply memory behind a page of registers: where it lies in the region, and how it is reached. */
export interface V1DataSection {
  /** In the region, in bytes. */
  readonly offset: number;
  /** In bytes. */
  readonly size: number;
  /** Its memory if it can be mapped. */
  readonly mapped: Uint8Array | undefined;
  /** Accesses by pread and pwrite, `at` bytes into the section and within it. */
  read(at: number, into: Uint8Array): void;
  /** As read(). */
  write(at: number, from: Uint8Array): void;
}

/**
 * Bytes of the largest page that Linux can be configured for on x86-64, which has 4 KiB, and on aarch64, which has 4, 16 and 64
 * (arch/arm64/Kconfig: ARM64_PAGE_SHIFT). Whole pages of this are whole pages of every host.
 */
const LARGEST_PAGE = 65_536;

/** The registers have a page of their own, whatever a page of the host is, so that the data section can be mapped. */
export const DATA_OFFSET = LARGEST_PAGE;

/** As many bytes in whole pages of any host. */
export function inLargestPages(size: number): number {
  return Math.ceil(size / LARGEST_PAGE) * LARGEST_PAGE;
}

/** A buffer of so many bytes, of which data_offset says where it is; `undefined` if it lies in no memory of ours. */
export function bufferIn(
  { mapped, dataSection }: Pick<V1Device, 'mapped' | 'dataSection'>,
  dataOffset: number,
  length: number,
): Uint8Array | undefined {
  const at = dataOffset - dataSection.offset;
  const isInside = mapped !== undefined && at >= 0 && at + length <= mapped.length;
  return isInside ? mapped.subarray(at, at + length) : undefined;
}

/** Memory behind the registers' page, for mmap as for pread and pwrite. */
class MappedSection implements V1DataSection {
  readonly offset = DATA_OFFSET;
  readonly size: number;
  readonly mapped: Uint8Array;

  constructor(memory: Uint8Array) {
    this.mapped = memory;
    this.size = memory.length;
  }

  read(at: number, into: Uint8Array): void {
    into.set(this.mapped.subarray(at, at + into.length));
  }

  write(at: number, from: Uint8Array): void {
    this.mapped.set(from, at);
  }
}

const { fields } = vfio_device_migration_info;
/** The registers: the fields of `struct vfio_device_migration_info`. */
export type V1RegisterName = keyof typeof fields;
const registers = new Map<number, { name: V1RegisterName; width: number }>(
  Object.entries(fields).map(([name, [kind, offset]]) => [
    offset,
    { name: name as V1RegisterName, width: fieldWidth(kind) },
  ]),
);

/** The register that an access of `length` bytes is to; `undefined` if it is to none, or to one that has another width. */
export function registerAt(offset: number, length: number): V1RegisterName | undefined {
  const register = registers.get(offset);
  return register?.width === length ? register.name : undefined;
}

/**
 * The migration region of a v1 device: routes accesses to the registers, each only at its native width and alignment,
 * and to the data section, at any. `refusal` is the errno for all others.
 */
export class V1Region implements V1Device {
  readonly regionSize: number;
  readonly dataSection: { readonly offset: number; readonly size: number };
  readonly mapped: Uint8Array | undefined;
  readonly readAhead: (() => void) | undefined;
  readonly #registers: V1Registers;
  readonly #section: V1DataSection;
  readonly #refusal: ErrnoName;

  constructor(registers: V1Registers, dataSection: Uint8Array | V1DataSection, refusal: ErrnoName = 'EINVAL') {
    const section = dataSection instanceof Uint8Array ? new MappedSection(dataSection) : dataSection;
    const { offset, size, mapped } = section;
    this.#registers = registers;
    this.readAhead = registers.readAhead && (() => registers.readAhead?.());
    this.#section = section;
    this.#refusal = refusal;
    this.mapped = mapped;
    this.dataSection = { offset, size };
    this.regionSize = offset + size;
  }

  read(offset: number, into: Uint8Array): void {
    const { offset: begin } = this.dataSection;
    if (offset >= begin) {
      this.#checkData('read', offset, into.length);
      this.#section.read(offset - begin, into);
      return;
    }
    const name = this.#registerOf('read', offset, into.length);
    switch (name) {
      case 'device_state':
        putU32(into, 0, checked(name, this.#registers.readDeviceState(), 2 ** 32 - 1));
        return;
      case 'reserved':
        putU32(into, 0, 0);
        return;
      case 'pending_bytes':
        putPending(into, this.#registers.readPendingBytes());
        return;
      case 'data_offset':
        putCount(into, checked(name, this.#registers.readDataOffset()));
        return;
      case 'data_size':
        putCount(into, checked(name, this.#registers.readDataSize()));
        return;
    }
  }

  write(offset: number, from: Uint8Array): void {
    const { offset: begin } = this.dataSection;
    if (offset >= begin) {
      this.#checkData('write', offset, from.length);
      this.#section.write(offset - begin, from);
      return;
    }
    const name = this.#registerOf('write', offset, from.length);
    const memory = new DataView(from.buffer, from.byteOffset, from.length);
    switch (name) {
      case 'device_state':
        this.#registers.writeDeviceState(memory.getUint32(0, true));
        return;
      case 'reserved':
        return;
      case 'data_size':
        this.#writeDataSize(memory.getBigUint64(0, true));
        return;
      case 'pending_bytes':
      case 'data_offset':
        throw this.#badAccess(`write of ${name}`, 'the register is read only');
    }
  }

  reset(): void {
    this.#registers.reset();
  }

  #writeDataSize(size: bigint): void {
    const { size: most } = this.dataSection;
    if (size > BigInt(most)) {
      throw this.#badAccess(`write of data_size ${size}`, `the data section has ${most} bytes`);
    }
    this.#registers.writeDataSize(Number(size));
  }

  #checkData(access: string, offset: number, length: number): void {
    if (!Number.isSafeInteger(offset) || length > this.regionSize - offset) {
      throw this.#badAccess(`${access} of ${length} bytes at ${offset}`, `the region has ${this.regionSize} bytes`);
    }
  }

  #registerOf(access: string, offset: number, length: number): V1RegisterName {
    const name = registerAt(offset, length);
    if (name !== undefined) return name;
    const register = registers.get(offset);
    const reason =
      register === undefined ? 'no register begins there' : `${register.name} is ${register.width} bytes wide`;
    throw this.#badAccess(`${access} of ${length} bytes at ${offset}`, reason);
  }

  #badAccess(what: string, why: string): ShimError {
    return new ShimError('ERR_ACCESS', `migration region: ${what}: ${why}`, { errno: this.#refusal });
  }
}

/** Little endian, a byte at a time: no view has to be made for the few bytes of a register. */
function putU32(into: Uint8Array, at: number, value: number): void {
  into[at] = value;
  into[at + 1] = value >>> 8;
  into[at + 2] = value >>> 16;
  into[at + 3] = value >>> 24;
}

function putCount(into: Uint8Array, value: number): void {
  putU32(into, 0, value % 2 ** 32);
  putU32(into, 4, Math.floor(value / 2 ** 32));
}

function putPending(into: Uint8Array, value: number | bigint): void {
  if (typeof value === 'number') putCount(into, checked('pending_bytes', value));
  else new DataView(into.buffer, into.byteOffset, into.length).setBigUint64(0, value, true);
}

/** What somebody's device says of itself. Throws `EIO` for what no register can show, if it would be another number. */
function checked(register: V1RegisterName, value: number, most = Number.MAX_SAFE_INTEGER): number {
  if (Number.isInteger(value) && value >= 0 && value <= most) return value;
  throw new ShimError('ERR_DEVICE', `migration region: ${register}: the device says ${value}`, { errno: 'EIO' });
}
