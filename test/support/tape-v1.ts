import { ShimError } from '../../src/error.ts';
import type { V1Device } from '../../src/v1/device.ts';
import { DATA_OFFSET, V1Region, type V1Registers } from '../../src/v1/region.ts';

/**
 * A v1 driver that plays back buffers a test wrote down, strictly by the text of the protocol: a buffer is current from
 * the read of data_offset on, and only a read of pending_bytes consumes it.
 */
export class TapeV1 implements V1Registers {
  state = 1;
  reserved = 0;
  /** What pre-copy offers, and what stop-and-copy adds. */
  readonly preCopy: Uint8Array[];
  readonly stopCopy: Uint8Array[];
  readonly loaded: Uint8Array[] = [];
  readonly states: number[] = [];
  /** Overrides what registers show, to lie. */
  lies: { pending?: number; offset?: number; size?: number } = {};
  /** Writes of device_state that fail, as `from to`, each once. */
  readonly refusals = new Map<
    string,
    { readonly error: ShimError; readonly now?: number; readonly always?: boolean }
  >();
  onLoad: ((bytes: Uint8Array) => void) | undefined;
  readonly section: Uint8Array;
  #current: Uint8Array | undefined;
  #shown = false;

  constructor(options: { preCopy?: Uint8Array[]; stopCopy?: Uint8Array[]; section?: number } = {}) {
    this.preCopy = options.preCopy ?? [];
    this.stopCopy = options.stopCopy ?? [];
    this.section = new Uint8Array(options.section ?? 65_536);
  }

  get device(): V1Device {
    return new V1Region(this, this.section);
  }

  readDeviceState(): number {
    return this.reserved + this.state;
  }

  writeDeviceState(value: number): void {
    const to = value % 8;
    const refusal = this.refusals.get(`${this.state} ${to}`);
    if (refusal !== undefined) {
      if (refusal.always !== true) this.refusals.delete(`${this.state} ${to}`);
      if (refusal.now !== undefined) this.state = refusal.now;
      throw refusal.error;
    }
    if (value - to !== this.reserved) throw new ShimError('ERR_DEVICE', 'reserved bits were lost', { errno: 'EINVAL' });
    if (to !== this.state) this.states.push(to);
    this.state = to;
  }

  readPendingBytes(): number {
    if (this.#shown) this.#current = undefined;
    this.#shown = false;
    if (this.lies.pending !== undefined) return this.lies.pending;
    return this.#queues().reduce((sum, buffer) => sum + buffer.length, this.#current?.length ?? 0);
  }

  readDataOffset(): number {
    this.#current ??= this.#queues()[0] === undefined ? undefined : this.#take();
    this.#shown = this.#current !== undefined;
    if (this.#current !== undefined) this.section.set(this.#current);
    return this.lies.offset ?? DATA_OFFSET;
  }

  readDataSize(): number {
    return this.lies.size ?? this.#current?.length ?? 0;
  }

  writeDataSize(size: number): void {
    const bytes = this.section.slice(0, size);
    this.onLoad?.(bytes);
    this.loaded.push(bytes);
  }

  reset(): void {
    this.state = 1;
    this.#current = undefined;
    this.#shown = false;
  }

  #queues(): Uint8Array[] {
    if (this.state === 3) return this.preCopy;
    return this.state === 2 ? [...this.preCopy, ...this.stopCopy] : [];
  }

  #take(): Uint8Array | undefined {
    return this.state === 3 || this.preCopy.length > 0 ? this.preCopy.shift() : this.stopCopy.shift();
  }
}
