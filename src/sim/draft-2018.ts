import type { ErrnoName } from '../abi/errno.ts';
import { isNotReady, ShimError } from '../error.ts';
import { DraftRegion, noAccess, type DraftRegisters } from '../v1/drafts/region.ts';
import type { Register2018 } from '../v1/drafts/registers.ts';
import { draftStateName, is2018Transition, S2018, type State2018 } from '../v1/drafts/states.ts';
import { DATA_OFFSET } from '../v1/region.ts';
import { V1 } from '../v1/states.ts';
import { DraftEngine, draftKeptSize } from './draft-engine.ts';
import type { DraftKind } from './driver-kind.ts';
import { iterativeOptions } from './vendor-v1-options.ts';

/** `draft-2018`: a driver of the first proposal. None was ever published, so this one is like none in particular. */
export const draft2018: DraftKind<typeof iterativeOptions> = {
  protocol: 'draft-2018',
  summary: 'a driver of the first proposal of a protocol (November 2018), which no kernel had',
  options: iterativeOptions,
  pci: { vendor: 0x1af4, device: 0x10f2, class: 0xff0000 },
  small: { size: 16 * 1024, section: 8 * 1024 },
  sectionSize: ({ section }) => section,
  keptSize: draftKeptSize,
  identity: ({ compat }) => ({ compat: String(compat) }),
  create: (values, memory) =>
    new DraftRegion('draft-2018', new Draft2018(new DraftEngine(values, memory)), memory.section),
};

class Draft2018 implements DraftRegisters<'draft-2018'> {
  readonly #engine: DraftEngine;

  constructor(engine: DraftEngine) {
    this.#engine = engine;
    if (engine.my.state_plus_one === 0) this.#state = S2018.RUNNING;
  }

  get #state(): State2018 {
    if (this.#engine.device.readDeviceState() === V1.ERROR) return S2018.MIGRATION_FAILED;
    return (this.#engine.my.state_plus_one - 1) as State2018;
  }

  set #state(state: State2018) {
    this.#engine.my.state_plus_one = state + 1;
  }

  readRegister(register: Register2018): number | bigint {
    switch (register) {
      case 'device_state':
        return this.#state;
      case 'pending_threshold_size':
        return this.#engine.my.threshold;
      case 'pending_precopy_only':
        return this.#state === S2018.MIGRATION_PRECOPY ? this.#pending() : 0;
      case 'pending_postcopy_only':
        return this.#state === S2018.MIGRATION_STOPNCOPY ? this.#pending() : 0;
      case 'data_offset':
        this.#look();
        this.#engine.my.offset_read = 1;
        return DATA_OFFSET;
      case 'data_size':
        this.#look();
        this.#engine.my.size_read = 1;
        return this.#engine.my.size;
      case 'pending_compatible':
      case 'dirty_pfns_copied': // the device does no DMA
        return 0;
      case 'dirty_pfns_start_addr':
      case 'dirty_pfns_total':
        throw noAccess('read', register);
    }
  }

  writeRegister(register: Register2018, value: bigint): void {
    switch (register) {
      case 'device_state':
        this.#enter(Number(value));
        return;
      case 'pending_threshold_size':
        this.#engine.my.threshold = value;
        return;
      case 'data_offset':
      case 'data_size':
        this.#load(register, value);
        return;
      case 'dirty_pfns_start_addr':
      case 'dirty_pfns_total':
        return;
      case 'pending_precopy_only':
      case 'pending_compatible':
      case 'pending_postcopy_only':
      case 'dirty_pfns_copied':
        throw noAccess('write', register);
    }
  }

  reset(): void {
    this.#engine.device.reset();
    this.#engine.forget();
    this.#state = S2018.RUNNING;
  }

  #wasRead(): boolean {
    const { offset_read, size_read } = this.#engine.my;
    return offset_read === 1 && size_read === 1;
  }

  #pending(): number {
    const { my, device } = this.#engine;
    if (my.size > 0 && !this.#wasRead()) return my.pending;
    my.pending = device.readPendingBytes();
    if (this.#wasRead()) this.#taken();
    return my.pending;
  }

  #taken(): void {
    const { my } = this.#engine;
    my.size = 0;
    my.offset_read = 0;
    my.size_read = 0;
  }

  /** The first of the two registers that is read says which buffer it is. */
  #look(): void {
    const { my } = this.#engine;
    if (this.#state !== S2018.MIGRATION_PRECOPY && this.#state !== S2018.MIGRATION_STOPNCOPY) return;
    if (this.#wasRead()) this.#taken();
    if (my.offset_read + my.size_read > 0) return;
    my.size = this.#engine.fetch();
    my.pending = Math.max(my.pending, my.size);
    this.#engine.show();
  }

  #load(register: 'data_offset' | 'data_size', value: bigint): void {
    const { my, section } = this.#engine;
    if (this.#state !== S2018.MIGRATION_RESUME) throw driver('EINVAL', `${register} is written while resuming only`);
    const at = register === 'data_offset' ? value - BigInt(DATA_OFFSET) : 0n;
    if (at < 0n || at > section.length || (register === 'data_size' && value > section.length)) {
      throw driver('EINVAL', `${register} is ${value}, the data section has ${section.length} bytes`);
    }
    if (register === 'data_offset') {
      my.write_offset = Number(at);
      my.offset_written = 1;
    } else {
      my.write_size = Number(value);
      my.size_written = 1;
    }
    if (my.offset_written === 0 || my.size_written === 0) return;
    if (my.write_size > section.length - my.write_offset) throw driver('EINVAL', 'the buffer leaves the data section');
    try {
      this.#engine.load(my.write_offset, my.write_size);
    } catch (error) {
      if (isNotReady(error)) throw error; // the write is repeated
      this.#loaded();
      throw error;
    }
    this.#loaded();
  }

  #loaded(): void {
    this.#engine.my.offset_written = 0;
    this.#engine.my.size_written = 0;
  }

  #enter(value: number): void {
    const { device } = this.#engine;
    const from = this.#state;
    if (!is2018Transition(from, value)) {
      throw driver('EINVAL', `device_state ${name(from)} does not lead to ${name(value)}`);
    }
    if (value === from) return;
    const isIncoming = from === S2018.MIGRATION_RESUME || from === S2018.MIGRATION_RESUME_COMPLETED;
    const isGivenUp = value === S2018.MIGRATION_FAILED || value === S2018.MIGRATION_CANCELLED;
    if (isIncoming && isGivenUp) device.reset();
    else {
      const state = inVendorV1[value];
      if (state !== undefined) device.writeDeviceState(state);
    }
    if (value !== S2018.MIGRATION_STOPNCOPY || from !== S2018.MIGRATION_PRECOPY) this.#engine.forget();
    this.#state = value;
  }
}

/** The state of the device behind the registers; SETUP changes nothing. */
const inVendorV1: Readonly<Record<State2018, number | undefined>> = {
  [S2018.NONE]: V1.STOP,
  [S2018.RUNNING]: V1.RUNNING,
  [S2018.MIGRATION_SETUP]: undefined,
  [S2018.MIGRATION_PRECOPY]: V1.PRE_COPY,
  [S2018.MIGRATION_STOPNCOPY]: V1.STOP_COPY,
  [S2018.MIGRATION_SAVE_COMPLETED]: V1.STOP,
  [S2018.MIGRATION_RESUME]: V1.RESUMING,
  [S2018.MIGRATION_RESUME_COMPLETED]: V1.STOP,
  [S2018.MIGRATION_FAILED]: V1.RUNNING,
  [S2018.MIGRATION_CANCELLED]: V1.RUNNING,
};

function name(state: number): string {
  return draftStateName('draft-2018', state);
}

function driver(errno: ErrnoName, why: string): ShimError {
  return new ShimError('ERR_DEVICE', `simulated draft-2018 driver: ${why}`, { errno });
}
