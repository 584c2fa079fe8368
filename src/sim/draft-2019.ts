import { ShimError } from '../error.ts';
import { DraftRegion, type DraftRegisters } from '../v1/drafts/region.ts';
import type { Register2019 } from '../v1/drafts/registers.ts';
import { draftStateName, S2019, type State2019 } from '../v1/drafts/states.ts';
import { DATA_OFFSET } from '../v1/region.ts';
import { V1, type V1State } from '../v1/states.ts';
import { DraftEngine, draftKeptSize } from './draft-engine.ts';
import type { DraftKind } from './driver-kind.ts';
import { iterativeOptions } from './vendor-v1-options.ts';

/**
 * `draft-2019`: a driver of February 2019 with the habits of the one that was published, NVIDIA's for vGPUs (nvidia-vgpu-vfio.c, built
 * for a header with `start_pfn`): a read of pending_bytes fetches the next buffer, one of data_offset takes it, and what it refuses it
 * refuses with EFAULT. Other than there, device_state can be read, as this package's own tools do.
 */
export const draft2019: DraftKind<typeof iterativeOptions> = {
  protocol: 'draft-2019',
  summary: "a driver of the proposal's third version (February 2019), with the habits of NVIDIA's",
  options: iterativeOptions,
  pci: { vendor: 0x1af4, device: 0x10f3, class: 0xff0000 },
  small: { size: 16 * 1024, section: 8 * 1024 },
  sectionSize: ({ section }) => section,
  keptSize: draftKeptSize,
  identity: ({ compat }) => ({ compat: String(compat) }),
  create: (values, memory) =>
    new DraftRegion('draft-2019', new Draft2019(new DraftEngine(values, memory)), memory.section),
};

class Draft2019 implements DraftRegisters<'draft-2019'> {
  readonly #engine: DraftEngine;

  constructor(engine: DraftEngine) {
    this.#engine = engine;
  }

  get #state(): V1State {
    return this.#engine.device.readDeviceState() as V1State;
  }

  readRegister(register: Register2019): number {
    switch (register) {
      case 'device_state':
        return shown(this.#state);
      case 'pending_bytes':
        return this.#pending();
      case 'data_offset':
        this.#take();
        return DATA_OFFSET;
      case 'data_size':
        return this.#engine.my.size;
      case 'copied_pfns': // the device does no DMA
      case 'reserved':
        return 0;
      case 'start_pfn':
      case 'page_size':
      case 'total_pfns':
        throw refused(`${register} is not read`);
    }
  }

  writeRegister(register: Register2019, value: bigint): void {
    switch (register) {
      case 'device_state':
        this.#enter(Number(value));
        return;
      case 'data_offset':
        if (value !== BigInt(DATA_OFFSET)) throw refused(`data_offset is ${value}, not ${DATA_OFFSET}`);
        return;
      case 'data_size':
        if (value > this.#engine.section.length) throw refused(`data_size is ${value}`);
        this.#engine.load(0, Number(value));
        return;
      case 'start_pfn':
      case 'page_size':
      case 'total_pfns':
        return;
      case 'reserved':
      case 'pending_bytes':
      case 'copied_pfns':
        throw refused(`${register} is not written`);
    }
  }

  reset(): void {
    this.#engine.device.reset();
    this.#engine.forget();
  }

  /** Fetches a buffer, unless the last one is still there. */
  #pending(): number {
    const { my } = this.#engine;
    if (this.#state !== V1.PRE_COPY && this.#state !== V1.STOP_COPY) return 0;
    if (my.offset_read === 0 && my.size > 0) return my.size;
    my.size = this.#engine.fetch();
    my.offset_read = 0;
    return my.size;
  }

  #take(): void {
    const { my } = this.#engine;
    if (my.size === 0 || my.offset_read === 1) return;
    this.#engine.show();
    my.offset_read = 1;
  }

  /** 0 after saving is a stop, and any other 0 begins to resume (nv_translate_device_state). */
  #enter(value: number): void {
    const from = this.#state;
    const isZero = value === S2019.STOPPED_OR_RESUMING;
    if (value > S2019.PRE_COPY || from === V1.ERROR) {
      throw refused(`device_state: ${draftStateName('draft-2019', value)} in ${from === V1.ERROR ? 'ERROR' : from}`);
    }
    const to = isZero && from !== V1.STOP_COPY ? V1.RESUMING : value;
    if (to === from) return;
    this.#engine.device.writeDeviceState(to);
    if (from !== V1.PRE_COPY || to !== V1.STOP_COPY) this.#engine.forget();
  }
}

/** Throws `EFAULT` for a device in ERROR, which this draft has no value for. */
function shown(state: V1State): State2019 {
  if (state === V1.ERROR) throw refused('the device is in ERROR');
  return state === V1.RESUMING ? S2019.STOPPED_OR_RESUMING : state;
}

function refused(why: string): ShimError {
  return new ShimError('ERR_DEVICE', `simulated draft-2019 driver: ${why}`, { errno: 'EFAULT' });
}
