import { ShimError } from '../error.ts';
import type { ErrnoName } from '../abi/errno.ts';
import { DATA_OFFSET, type V1Registers } from '../v1/region.ts';
import { isV1State, isV1Transition, V1, v1StateName, type V1State } from '../v1/states.ts';
import type { Fault } from './fault.ts';
import { faultError, Faults } from './faults.ts';
import { isLibvfioTransition } from './libvfio-states.ts';
import type { SimMemory } from './memory.ts';
import { VendorLoader } from './vendor-v1-load.ts';
import { Kind, PAGE, record, vendor_v1_state, type VendorState } from './vendor-v1-format.ts';
import type { VendorV1Values } from './vendor-v1-options.ts';
import { VendorSaver } from './vendor-v1-save.ts';

/** `vendor-v1`: an out-of-tree driver of the first protocol. One v1 buffer is one record. */
export class VendorV1 implements V1Registers {
  readonly #values: VendorV1Values;
  readonly #memory: SimMemory;
  readonly #my: VendorState;
  readonly #faults: Faults;
  readonly #saver: VendorSaver;
  readonly #loader: VendorLoader;

  constructor(values: VendorV1Values, memory: SimMemory) {
    this.#values = values;
    this.#memory = memory;
    this.#my = vendor_v1_state.view(memory.state);
    this.#faults = new Faults(values, this.#my, memory.state);
    const { bar, section, kept } = memory;
    const most = Math.floor((section.length - record.size) / PAGE) * PAGE;
    this.#saver = new VendorSaver(values, { bar, sent: kept, buffer: section }, this.#my, most);
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
    const isTaken = this.#values.libvfio ? isLibvfioTransition(from, value) : isV1Transition(from, value);
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
    if (my.shown === 1) this.#saver.acknowledge();
    if (my.buffer_size === 0) this.#saver.prepare();
    const end = my.device_state === V1.STOP_COPY && my.end_sent === 0 ? record.size : 0;
    const pending = my.buffer_size + this.#saver.rest + (my.buffer_kind === Kind.END ? 0 : end);
    // "primarily regarded as boolean" (libvfio-user b52bff7, include/libvfio-user.h: vfu_migration_callbacks_t)
    return this.#values.libvfio ? Math.min(1, pending) : pending;
  }

  readDataOffset(): number {
    const my = this.#my;
    if (my.device_state === V1.PRE_COPY || my.device_state === V1.STOP_COPY) {
      if (my.shown === 0) {
        const fault = this.#faults.beforeData('read');
        if (fault !== undefined) throw this.#fail(fault);
      }
      if (my.buffer_size === 0) this.#saver.prepare();
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
    this.#saver.begin();
    this.#loader.begin();
  }
}

function driver(errno: ErrnoName, why: string): ShimError {
  return new ShimError('ERR_DEVICE', `simulated v1 driver: ${why}`, { errno });
}
