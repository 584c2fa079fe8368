import { ShimError } from '../../error.ts';
import { DATA_OFFSET } from '../region.ts';
import type { Draft, DraftDevice } from './device.ts';
import { draftRegisters, putValue, valueIn, type DraftRegister, type RegisterOf } from './registers.ts';

/** What stands behind the registers of a draft's region. A number that a device gives is a safe one. */
export interface DraftRegisters<D extends Draft> {
  /** Throws `EINVAL` for a register that is only written. */
  readRegister(register: RegisterOf<D>): number | bigint;
  /** Throws `EINVAL` for a register that is only read. */
  writeRegister(register: RegisterOf<D>, value: bigint): void;
  /** The user has written bytes where no register is. It is refused, whatever this does. */
  strayWrite?(): void;
  /** As DraftDevice.reset(). */
  reset(): void;
}

/** The migration region of a draft: routes accesses to the registers, each only at its own place and width, and to the data section. */
export class DraftRegion<D extends Draft> implements DraftDevice {
  readonly draft: D;
  readonly regionSize: number;
  readonly dataSection: { readonly offset: number; readonly size: number };
  readonly mapped: Uint8Array;
  readonly #registers: DraftRegisters<D>;

  constructor(draft: D, registers: DraftRegisters<D>, dataSection: Uint8Array) {
    this.draft = draft;
    this.#registers = registers;
    this.mapped = dataSection;
    this.dataSection = { offset: DATA_OFFSET, size: dataSection.length };
    this.regionSize = DATA_OFFSET + dataSection.length;
  }

  read(offset: number, into: Uint8Array): void {
    if (offset >= DATA_OFFSET) into.set(this.#data('read', offset, into.length));
    else {
      const register = this.#registerOf('read', offset, into.length);
      putValue(into, checked(register, this.#registers.readRegister(register), into.length));
    }
  }

  write(offset: number, from: Uint8Array): void {
    if (offset >= DATA_OFFSET) this.#data('write', offset, from.length).set(from);
    else this.#registers.writeRegister(this.#registerOf('write', offset, from.length), valueIn(from));
  }

  reset(): void {
    this.#registers.reset();
  }

  #data(access: string, offset: number, length: number): Uint8Array {
    if (!Number.isSafeInteger(offset) || length > this.regionSize - offset) {
      throw badAccess(`${access} of ${length} bytes at ${offset}`, `the region has ${this.regionSize} bytes`);
    }
    return this.mapped.subarray(offset - DATA_OFFSET, offset - DATA_OFFSET + length);
  }

  #registerOf(access: 'read' | 'write', offset: number, length: number): RegisterOf<D> {
    const table = draftRegisters[this.draft];
    const register = table.at(offset, length);
    if (register !== undefined) return register as RegisterOf<D>;
    if (access === 'write' && offset >= table.size) this.#registers.strayWrite?.();
    const place = table.beginningAt(offset);
    const reason = place === undefined ? 'no register begins there' : `${place.name} is ${place.width} bytes wide`;
    throw badAccess(`${access} of ${length} bytes at ${offset}`, reason);
  }
}

/** The refusal of an access that a register does not have. */
export function noAccess(access: 'read' | 'write', register: DraftRegister): ShimError {
  return badAccess(`${access} of ${register}`, `the register is ${access === 'read' ? 'write' : 'read'} only`);
}

function badAccess(what: string, why: string): ShimError {
  return new ShimError('ERR_ACCESS', `migration region: ${what}: ${why}`, { errno: 'EINVAL' });
}

/** What a device says of itself. Throws `EIO` for what no register can show, if it would be another number. */
function checked(register: DraftRegister, value: number | bigint, width: number): bigint {
  const isWhole = typeof value === 'bigint' || Number.isSafeInteger(value);
  if (isWhole && value >= 0 && BigInt(value) < 1n << BigInt(8 * width)) return BigInt(value);
  throw new ShimError('ERR_DEVICE', `migration region: ${register}: the device says ${value}`, { errno: 'EIO' });
}
