import { struct } from '../abi/struct.ts';
import { DATA_OFFSET, V1Region, type V1DataSection, type V1Registers } from '../v1/region.ts';
import { V1, v1StateName } from '../v1/states.ts';
import { commonOptions, compatibilityOptions } from './common-options.ts';
import type { V1Kind } from './driver-kind.ts';
import { isLibvfioTransition } from './libvfio-states.ts';
import type { SimMemory } from './memory.ts';
import type { ValuesOf } from './option.ts';
import { isFor, setupBlock, SETUP_SIZE, type Setup } from './setup-block.ts';
import { refused, v1DriverFields, V1DriverState } from './v1-driver.ts';

const options = { ...commonOptions(64 * 1024), ...compatibilityOptions };
type SpdkV1Values = ValuesOf<typeof options>;

const MAGIC = 0x314b_4453; // "SDK1"
const PAGE = 4096;

/** Where libvfio-user is in a buffer (lib/migration_priv.h: enum migr_iter_state). */
const Iteration = { INITIAL: 0, STARTED: 1, DATA_PREPARED: 2, FINISHED: 3 } as const;

const spdk_v1_state = struct('spdk_v1_state', 64, {
  ...v1DriverFields,
  /** libvfio-user's: the buffer, and what it was told is pending. */
  iteration: ['u32', 20],
  shown_at: ['count', 24],
  shown_size: ['count', 32],
  shown_pending: ['count', 40],
  /** SPDK's: what is pending, whether the whole state was given, whether it was saved here, whether the controller is stopped. */
  pending: ['count', 48],
  given: ['u8', 56],
  in_source_vm: ['u8', 57],
  migrating: ['u8', 58],
});

/**
 * `spdk-v1`: SPDK's NVMe controller on libvfio-user, before both went on to v2 (SPDK 22.01, lib/nvmf/vfio_user.c:
 * vfio_user_migration_device_state_transition, vfio_user_migration_prepare_data; libvfio-user aa19ba9, lib/migration.c:
 * handle_pending_bytes, handle_data_offset).
 *
 * Its state is one buffer as large as the data section, which nothing counts down: pending_bytes is all of it until a buffer of 0
 * bytes was shown. Pre-copy gives such buffers without end, as the state is saved with stop-and-copy only. It is given away if
 * the device came there through pre-copy: from 1 to 2 directly, nothing is pending. A destination checks and loads whatever the
 * data section holds on a write of 1, and so does a controller that was stopped and goes on. pread and pwrite of data
 * forget where they were to begin. Registers out of turn are EINVAL.
 */
class SpdkV1 implements V1Registers, V1DataSection {
  readonly offset = DATA_OFFSET;
  readonly size: number;
  readonly mapped: Uint8Array;
  readonly #setup: Setup;
  readonly #bar: Uint8Array;
  readonly #my: ReturnType<typeof spdk_v1_state.view>;
  readonly #state: V1DriverState;

  constructor(values: SpdkV1Values, memory: SimMemory) {
    this.#setup = { magic: MAGIC, version: values.version, compat: values.compat, size: values.size };
    this.#bar = memory.bar;
    this.mapped = memory.section;
    this.size = memory.section.length;
    this.#my = spdk_v1_state.view(memory.state);
    this.#state = new V1DriverState(values, this.#my, memory.state);
  }

  readDeviceState(): number {
    return this.#state.current;
  }

  /** Of the state that the device is in, too: a buffer begins anew then. */
  writeDeviceState(value: number): void {
    const from = this.#state.current;
    if (!isLibvfioTransition(from, value)) {
      throw refused('EINVAL', `device_state ${v1StateName(from)} does not lead to ${v1StateName(value)}`);
    }
    if (value !== from) this.#state.entering(value);
    this.#enter(value);
    this.#state.current = value;
    this.#my.iteration = Iteration.INITIAL;
  }

  #enter(to: number): void {
    const my = this.#my;
    switch (to) {
      case V1.STOP_COPY:
        my.migrating = 1;
        this.#save();
        return;
      case V1.STOP:
        my.migrating = 1;
        return;
      case V1.PRE_COPY:
        my.pending = this.size;
        my.given = 0;
        my.in_source_vm = 1;
        return;
      case V1.RESUMING:
        my.migrating = 1;
        return;
      default:
        if (my.migrating === 1 && my.in_source_vm === 0) this.#load();
        my.migrating = 0;
    }
  }

  readPendingBytes(): number {
    const my = this.#my;
    if (my.iteration === Iteration.FINISHED) return 0;
    if (my.iteration === Iteration.STARTED) return my.shown_pending;
    my.shown_pending = my.pending;
    my.iteration = my.pending === 0 ? Iteration.FINISHED : Iteration.STARTED;
    return my.pending;
  }

  readDataOffset(): number {
    const my = this.#my;
    const { current } = this.#state;
    if (current === V1.RESUMING) return this.offset + (my.given === 1 ? this.size : 0);
    if (current !== V1.PRE_COPY && current !== V1.STOP_COPY) throw refused('EINVAL', 'data_offset is read out of turn');
    if (my.iteration === Iteration.STARTED) this.#prepare();
    else if (my.iteration !== Iteration.DATA_PREPARED) throw refused('EINVAL', 'data_offset is read out of turn');
    return this.offset + my.shown_at;
  }

  #prepare(): void {
    const my = this.#my;
    if (my.given === 1) {
      my.shown_at = this.size;
      my.shown_size = 0;
      my.pending = 0;
    } else {
      this.#state.moving('read');
      my.shown_at = 0;
      my.shown_size = this.size;
      if (my.migrating === 1) {
        this.#save();
        my.given = 1;
      }
    }
    my.iteration = Iteration.DATA_PREPARED;
  }

  readDataSize(): number {
    const { iteration, shown_size } = this.#my;
    const { current } = this.#state;
    if (current === V1.RESUMING) return 0;
    const isShown = iteration === Iteration.STARTED || iteration === Iteration.DATA_PREPARED;
    if (!isShown || (current !== V1.PRE_COPY && current !== V1.STOP_COPY)) {
      throw refused('EINVAL', 'data_size is read out of turn');
    }
    return shown_size;
  }

  writeDataSize(): void {
    if (this.#state.current !== V1.RESUMING) throw refused('EINVAL', 'data_size is written while resuming only');
    this.#state.moving('write');
  }

  read(_at: number, into: Uint8Array): void {
    into.set(this.mapped.subarray(0, into.length));
    this.#my.pending = 0;
  }

  write(_at: number, from: Uint8Array): void {
    this.mapped.set(from);
  }

  /** The controller is a new one. */
  reset(): void {
    const my = this.#my;
    this.#state.current = V1.RUNNING;
    my.iteration = Iteration.INITIAL;
    my.pending = 0;
    my.given = 0;
    my.in_source_vm = 0;
    my.migrating = 0;
  }

  #save(): void {
    this.mapped.set(setupBlock(this.#setup));
    this.mapped.set(this.#bar, SETUP_SIZE);
  }

  #load(): void {
    if (!isFor(this.#setup, this.mapped))
      throw refused('EINVAL', 'the data section holds no state of such a controller');
    this.#bar.set(this.mapped.subarray(SETUP_SIZE, SETUP_SIZE + this.#bar.length));
  }
}

/** `spdk-v1`, see {@link SpdkV1}. */
export const spdkV1: V1Kind<typeof options> = {
  protocol: 'v1',
  summary: "SPDK's NVMe controller on libvfio-user: one buffer for all, pre-copy without end, no 0 to 2 and 4 to 0",
  options,
  pci: { vendor: 0x4e58, device: 0x0001, class: 0x010802 },
  small: { size: 16 * 1024 },
  sectionSize: ({ size }) => Math.ceil((SETUP_SIZE + size) / PAGE) * PAGE,
  identity: ({ compat }) => ({ compat: String(compat) }),
  create: (values, memory) => {
    const driver = new SpdkV1(values, memory);
    return new V1Region(driver, driver);
  },
};
