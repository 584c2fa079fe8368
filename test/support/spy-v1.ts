import type { V1Device } from '../../src/v1/device.ts';
import { REGISTERS, type RegisterName } from './v1-user.ts';

export interface SpyV1Options {
  /** Called before an access reaches the device; what it throws is the access's answer. */
  before?(access: 'read' | 'write', what: RegisterName | 'data', value: number): void;
  /** Whether the data section can be mapped (default), or only read and written. */
  readonly mapped?: boolean;
}

/**
 * A v1 device between the one under test and its user: records every access, and by the protocol's own rules which
 * buffers its user has consumed.
 */
export class SpyV1 implements V1Device {
  readonly device: V1Device;
  readonly log: string[] = [];
  /** Buffers that the user was shown and has acknowledged, and transactions that the driver has taken. */
  readonly consumed: Uint8Array[] = [];
  readonly loaded: Uint8Array[] = [];
  /** What was written to device_state, refused or not, with what it was before: `from>to`. */
  readonly changes: string[] = [];
  options: SpyV1Options;
  #shownAt = 0;
  #shown: Uint8Array | undefined;

  constructor(device: V1Device, options: SpyV1Options = {}) {
    this.device = device;
    this.options = options;
  }

  get regionSize(): number {
    return this.device.regionSize;
  }

  get dataSection(): { readonly offset: number; readonly size: number } {
    return this.device.dataSection;
  }

  get mapped(): Uint8Array | undefined {
    return this.options.mapped === false ? undefined : this.device.mapped;
  }

  read(offset: number, into: Uint8Array): void {
    const what = registerAt(offset);
    this.options.before?.('read', what, into.length);
    this.device.read(offset, into);
    const value = valueOf(into);
    this.log.push(what === 'data' ? `read data ${offset}+${into.length}` : `read ${what} ${value}`);
    if (what === 'data_offset') this.#shownAt = value;
    if (what === 'data_size') this.#show(value);
    if (what === 'pending_bytes') this.#acknowledge();
  }

  write(offset: number, from: Uint8Array): void {
    const what = registerAt(offset);
    const value = valueOf(from);
    this.options.before?.('write', what, what === 'data' ? from.length : value);
    if (what === 'device_state') this.changes.push(`${this.#state()}>${value & 7}`);
    this.log.push(what === 'data' ? `write data ${offset}+${from.length}` : `write ${what} ${value}`);
    this.device.write(offset, from);
    if (what === 'device_state' && (value & 2) === 0) this.#shown = undefined; // the saving session is over
    if (what === 'data_size') this.loaded.push(this.#content(this.device.dataSection.offset, value));
  }

  reset(): void {
    this.log.push('reset');
    this.#shown = undefined;
    this.device.reset();
  }

  #state(): number {
    const bytes = new Uint8Array(4);
    this.device.read(0, bytes);
    return valueOf(bytes) & 7;
  }

  #show(size: number): void {
    const fits = this.#shownAt >= this.dataSection.offset && size <= this.device.regionSize - this.#shownAt;
    this.#shown = size > 0 && fits ? this.#content(this.#shownAt, size) : undefined;
  }

  #acknowledge(): void {
    if (this.#shown !== undefined) this.consumed.push(this.#shown);
    this.#shown = undefined;
  }

  #content(offset: number, size: number): Uint8Array {
    const bytes = new Uint8Array(size);
    this.device.read(offset, bytes);
    return bytes;
  }
}

function registerAt(offset: number): RegisterName | 'data' {
  const found = Object.entries(REGISTERS).find(([, register]) => register.offset === offset);
  return found === undefined ? 'data' : (found[0] as RegisterName);
}

function valueOf(bytes: Uint8Array): number {
  return bytes.length > 8 ? bytes.length : bytes.reduceRight((value, byte) => value * 256 + byte, 0);
}
