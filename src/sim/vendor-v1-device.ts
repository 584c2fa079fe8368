import { ShimError } from '../error.ts';
import type { ErrnoName } from '../abi/errno.ts';
import { DATA_OFFSET, type V1Registers } from '../v1/region.ts';
import { isV1State, isV1Transition, V1, v1StateName, type V1State } from '../v1/states.ts';
import type { Fault } from './fault.ts';
import { faultError, Faults } from './faults.ts';
import type { SimMemory } from './memory.ts';
import { VendorLoader } from './vendor-v1-load.ts';
import { Kind, MAGIC, PAGE, record, vendor_v1_state, type VendorState } from './vendor-v1-format.ts';
import type { VendorV1Values } from './vendor-v1-options.ts';

/** How much memory one look for changed pages compares in pre-copy, in bytes. */
const SCAN_WINDOW = 16 * 1024 * 1024;
/**
 * The changes of device_state that libvfio-user's v1 servers take (lib/migration_priv.h: migr_states, until September 2023; b52bff7).
 * Their pending_bytes is "primarily regarded as boolean" (include/libvfio-user.h: vfu_migration_callbacks_t).
 */
const LIBVFIO: Readonly<Record<V1State, readonly number[]>> = {
  [V1.STOP]: [0, 1],
  [V1.RUNNING]: [0, 1, 2, 3, 4],
  [V1.STOP_COPY]: [0, 1, 2],
  [V1.PRE_COPY]: [0, 1, 2],
  [V1.RESUMING]: [1, 4],
  [V1.ERROR]: [],
};

/** A device that dirties its own pages does so for this many buffers, so that pre-copy converges. */
const DIRTYING_BUFFERS = 64;

/**
 * `vendor-v1`: an out-of-tree driver of the first protocol. Pre-copy sends all memory once and then what has changed since;
 * stop-and-copy sends the rest. One v1 buffer is one record. What was sent is remembered only once the user acknowledged
 * it, and by content, so that writes of the guest count as well as the device's own.
 */
export class VendorV1 implements V1Registers {
  readonly #values: VendorV1Values;
  readonly #memory: SimMemory;
  readonly #my: VendorState;
  readonly #faults: Faults;
  readonly #loader: VendorLoader;

  constructor(values: VendorV1Values, memory: SimMemory) {
    this.#values = values;
    this.#memory = memory;
    this.#my = vendor_v1_state.view(memory.state);
    this.#faults = new Faults(values, this.#my, memory.state);
    this.#loader = new VendorLoader(values, memory, this.#my);
    if (this.#my.initialized === 0) {
      this.#my.initialized = 1;
      this.#my.device_state = V1.RUNNING;
    }
  }

  readDeviceState(): number {
    return this.#my.device_state;
  }

  writeDeviceState(value: number): void {
    const my = this.#my;
    const from = my.device_state as V1State;
    const isTaken = this.#values.libvfio ? LIBVFIO[from].includes(value) : isV1Transition(from, value);
    if (!isTaken || !isV1State(value)) {
      throw driver('EINVAL', `device_state ${v1StateName(from)} does not lead to ${v1StateName(value)}`);
    }
    if (value === from) return;
    const fault = this.#faults.beforeEntry(v1StateName(value));
    if (fault !== undefined) throw this.#fail(fault);
    if (from === V1.RESUMING) this.#loader.checkComplete();
    const continues = from === V1.PRE_COPY && value === V1.STOP_COPY;
    if (!continues) this.#beginAnew();
    my.scan = 0;
    my.device_state = value;
  }

  readPendingBytes(): number {
    const my = this.#my;
    if (my.device_state !== V1.PRE_COPY && my.device_state !== V1.STOP_COPY) return 0;
    if (my.shown === 1) this.#acknowledge();
    if (my.buffer_size === 0) this.#prepare();
    const rest = Math.max(0, this.#values.size - my.cursor);
    const end = my.device_state === V1.STOP_COPY && my.end_sent === 0 ? record.size : 0;
    const pending = my.buffer_size + rest + (my.buffer_kind === Kind.END ? 0 : end);
    return this.#values.libvfio ? Math.min(1, pending) : pending;
  }

  readDataOffset(): number {
    const my = this.#my;
    if (my.device_state === V1.PRE_COPY || my.device_state === V1.STOP_COPY) {
      if (my.shown === 0) {
        const fault = this.#faults.beforeData('read');
        if (fault !== undefined) throw this.#fail(fault);
      }
      if (my.buffer_size === 0) this.#prepare();
      my.shown = my.buffer_size > 0 ? 1 : 0;
    }
    return DATA_OFFSET;
  }

  readDataSize(): number {
    return this.#my.buffer_size;
  }

  writeDataSize(size: number): void {
    if (this.#my.device_state !== V1.RESUMING) throw driver('EINVAL', 'data_size is written while resuming only');
    const fault = this.#faults.beforeData('write');
    if (fault !== undefined) throw this.#fail(fault);
    this.#loader.load(this.#memory.section.subarray(0, size));
  }

  reset(): void {
    this.#beginAnew();
    this.#my.device_state = V1.RUNNING;
  }

  #fail(fault: Fault): ShimError {
    if (fault.fatal) {
      this.#beginAnew();
      this.#my.device_state = V1.ERROR;
    }
    return faultError(fault);
  }

  #beginAnew(): void {
    const my = this.#my;
    my.cursor = 0;
    my.scan = 0;
    my.buffer_size = 0;
    my.buffer_kind = 0;
    my.shown = 0;
    my.header_sent = 0;
    my.end_sent = 0;
    my.dirtied = 0;
    this.#loader.begin();
  }

  /** The user has the buffer: what it held counts as sent. Repeating this changes nothing. */
  #acknowledge(): void {
    const my = this.#my;
    if (my.buffer_kind === Kind.HEADER) my.header_sent = 1;
    if (my.buffer_kind === Kind.END) my.end_sent = 1;
    if (my.buffer_kind === Kind.PAGES) {
      const { section, kept } = this.#memory;
      kept.set(section.subarray(record.size, my.buffer_size), my.buffer_offset);
      my.cursor = Math.max(my.cursor, my.buffer_offset + my.buffer_size - record.size);
      if (my.device_state === V1.PRE_COPY) this.#dirtyOwnPages();
    }
    my.buffer_size = 0;
    my.buffer_kind = 0;
    my.shown = 0;
  }

  /** Puts the next record into the data section; none if there is nothing to send now. */
  #prepare(): void {
    const my = this.#my;
    const stopped = my.device_state === V1.STOP_COPY;
    if (my.header_sent === 0) {
      this.#put(Kind.HEADER, this.#values.size, 0);
      return;
    }
    const run = this.#nextRun(stopped);
    if (run !== undefined) this.#put(Kind.PAGES, run.offset, run.length);
    else if (stopped && my.end_sent === 0) this.#put(Kind.END, 0, 0);
  }

  #put(kind: number, offset: number, length: number): void {
    const { section, bar } = this.#memory;
    const { version, compat } = this.#values;
    record.encode({ magic: MAGIC, kind, version, compat, offset: BigInt(offset), length: BigInt(length) }, section);
    if (kind === Kind.PAGES) section.set(bar.subarray(offset, offset + length), record.size);
    const my = this.#my;
    my.buffer_kind = kind;
    my.buffer_offset = offset;
    my.buffer_size = record.size + length;
  }

  /** Memory that the destination lacks: first all of it, then what differs from what was sent. */
  #nextRun(stopped: boolean): { offset: number; length: number } | undefined {
    const my = this.#my;
    const { bar, kept, section } = this.#memory;
    const { size } = this.#values;
    const most = Math.floor((section.length - record.size) / PAGE) * PAGE;
    if (my.cursor < size) return { offset: my.cursor, length: Math.min(most, size - my.cursor) };
    const window = stopped ? size : Math.min(size, SCAN_WINDOW);
    const changed = (at: number): boolean =>
      Buffer.compare(bar.subarray(at, Math.min(size, at + PAGE)), kept.subarray(at, Math.min(size, at + PAGE))) !== 0;
    for (let looked = 0; looked < window; looked += PAGE) {
      if (my.scan >= size) {
        if (stopped) return undefined;
        my.scan = 0;
      }
      if (changed(my.scan)) {
        let end = my.scan + PAGE;
        while (end < size && end - my.scan < most && changed(end)) end += PAGE;
        return { offset: my.scan, length: Math.min(end, size) - my.scan };
      }
      my.scan += PAGE;
    }
    return undefined;
  }

  /** The device works while it is being saved. */
  #dirtyOwnPages(): void {
    const my = this.#my;
    if (my.dirtied >= DIRTYING_BUFFERS) return;
    my.dirtied += 1;
    const pages = Math.max(1, Math.floor(this.#values.size / PAGE));
    for (let n = 0; n < this.#values.dirty; n += 1) {
      const page = Math.imul(my.dirtied * 31 + n + this.#values.seed, 0x9e3779b1) >>> 0;
      const at = (page % pages) * PAGE;
      this.#memory.bar[at] = ((this.#memory.bar[at] ?? 0) + 1) & 0xff;
    }
  }
}

function driver(errno: ErrnoName, why: string): ShimError {
  return new ShimError('ERR_DEVICE', `simulated v1 driver: ${why}`, { errno });
}
