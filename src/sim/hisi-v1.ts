import { vfio_device_migration_info } from '../abi/vfio-v1.ts';
import { struct } from '../abi/struct.ts';
import { V1Region, type V1DataSection, type V1Registers } from '../v1/region.ts';
import { V1, v1StateName, type V1State } from '../v1/states.ts';
import { commonOptions, compatibilityOptions } from './common-options.ts';
import type { V1Kind } from './driver-kind.ts';
import type { SimMemory } from './memory.ts';
import type { ValuesOf } from './option.ts';
import { isFor, setupBlock, SETUP_SIZE, type Setup } from './setup-block.ts';
import { refused, v1DriverFields, V1DriverState } from './v1-driver.ts';

const options = { ...commonOptions(64 * 1024), ...compatibilityOptions };
type HisiV1Values = ValuesOf<typeof options>;

const MAGIC = 0x31534948; // "HIS1"

const hisi_v1_state = struct('hisi_v1_state', 48, {
  ...v1DriverFields,
  /** The registers as they lie there. */
  pending_bytes: ['u64', 24],
  data_size: ['count', 32],
});

/** Between which states the driver goes: it compares nothing but the new one with those that it knows. */
const KNOWN: ReadonlySet<number> = new Set([V1.STOP, V1.RUNNING, V1.STOP_COPY, V1.PRE_COPY, V1.RESUMING]);

/**
 * `hisi-v1`: the migration region of HiSilicon's driver as it was proposed for v1 (acc_vf_set_device_state, acc_vf_data_transfer,
 * acc_vf_region_migration_rw: patches of 2021, "vfio/hisilicon: register the driver to vfio"; merged for v2 only).
 *
 * Its registers are plain memory with the data right behind them, at 32. Nothing is acknowledged: pending_bytes counts down by each
 * byte that is read, below 0 if one is read twice. Pre-copy has the match data, stop-and-copy the whole state, match data
 * included, at the same place. A destination checks the match data if it comes as a transaction of its own, and loads whatever
 * lies there on a write of 1 in 4: in any other order its state is lost, and nobody is told.
 */
class HisiV1 implements V1Registers, V1DataSection {
  readonly offset = vfio_device_migration_info.size;
  readonly size: number;
  readonly mapped = undefined; // the driver's mmap answers EFAULT
  readonly #setup: Setup;
  readonly #memory: SimMemory;
  readonly #my: ReturnType<typeof hisi_v1_state.view>;
  readonly #state: V1DriverState;

  constructor(values: HisiV1Values, memory: SimMemory) {
    this.#setup = { magic: MAGIC, version: values.version, compat: values.compat, size: values.size };
    this.#memory = memory;
    this.#my = hisi_v1_state.view(memory.state);
    this.#state = new V1DriverState(values, this.#my, memory.state);
    this.size = memory.section.length;
  }

  readDeviceState(): number {
    this.#checkMatch();
    return this.#state.current;
  }

  writeDeviceState(value: number): void {
    const from = this.#state.current;
    if (value === from) return;
    if (!KNOWN.has(value) || from === V1.ERROR) throw refused('EFAULT', `knows no state ${v1StateName(value)}`);
    const to = value as V1State;
    this.#state.entering(to);
    if (to === V1.PRE_COPY) this.#offer(SETUP_SIZE);
    if (to === V1.STOP_COPY) this.#offer(this.size);
    if (to === V1.RUNNING && from === V1.RESUMING && this.#my.data_size > 0) this.#load();
    this.#state.current = to;
  }

  readPendingBytes(): bigint {
    this.#checkMatch();
    return this.#my.pending_bytes;
  }

  readDataOffset(): number {
    const { current } = this.#state;
    if (current === V1.PRE_COPY || current === V1.STOP_COPY) this.#state.moving('read');
    this.#checkMatch();
    return this.offset;
  }

  readDataSize(): number {
    this.#checkMatch();
    return this.#my.data_size;
  }

  writeDataSize(size: number): void {
    if (this.#state.current === V1.RESUMING) this.#state.moving('write');
    this.#my.data_size = size;
    this.#checkMatch();
  }

  read(at: number, into: Uint8Array): void {
    into.set(this.#memory.section.subarray(at, at + into.length));
    this.#count(-into.length);
  }

  write(at: number, from: Uint8Array): void {
    this.#memory.section.set(from, at);
    this.#count(from.length);
    this.#checkMatch();
  }

  reset(): void {
    this.#state.current = V1.RUNNING;
    this.#my.data_size = 0;
    this.#my.pending_bytes = 0n;
  }

  #offer(length: number): void {
    const { bar, section } = this.#memory;
    section.set(setupBlock(this.#setup));
    if (length > SETUP_SIZE) section.set(bar, SETUP_SIZE);
    this.#my.data_size = length;
    this.#my.pending_bytes = BigInt(length);
  }

  #load(): void {
    const { bar, section } = this.#memory;
    bar.set(section.subarray(SETUP_SIZE));
  }

  #count(bytes: number): void {
    this.#my.pending_bytes = BigInt.asUintN(64, this.#my.pending_bytes + BigInt(bytes));
  }

  /** With every access while resuming, once the registers say that the match data is there: so after a mismatch, each one fails. */
  #checkMatch(): void {
    const my = this.#my;
    const isThere = my.data_size === SETUP_SIZE && my.pending_bytes === BigInt(SETUP_SIZE);
    if (this.#state.current !== V1.RESUMING || !isThere) return;
    if (!isFor(this.#setup, this.#memory.section)) throw refused('EFAULT', 'the match data is of another device');
    my.data_size = 0;
    my.pending_bytes = 0n;
  }
}

/** `hisi-v1`, see {@link HisiV1}. */
export const hisiV1: V1Kind<typeof options> = {
  protocol: 'v1',
  summary: 'HiSilicon accelerators as proposed in 2021: loads on 4 to 1 only, no mmap, counts each byte read',
  options,
  pci: { vendor: 0x19e5, device: 0xa251, class: 0x0b4000 },
  small: { size: 16 * 1024 },
  sectionSize: ({ size }) => SETUP_SIZE + size,
  identity: ({ compat }) => ({ compat: String(compat) }),
  create: (values, memory) => {
    const driver = new HisiV1(values, memory);
    return new V1Region(driver, driver, 'EFAULT');
  },
};
