import type { ErrnoName } from '../abi/errno.ts';
import type { V2DataSession } from '../v2/device.ts';
import { V2, type V2State } from '../v2/states.ts';
import type { CompatibleValues } from './common-options.ts';
import type { SimMemory } from './memory.ts';
import { isFor, setupBlock, SETUP_SIZE, type Setup } from './setup-block.ts';
import { BufferDevice } from './buffer-device.ts';
import { simError } from './sim-error.ts';

/** PDS_LM_DEVICE_STATE_LENGTH (include/linux/pds/pds_adminq.h, Linux 6.12). */
export const PDS_STATE_SIZE = 65_536;
export const PDS_LARGEST_MEMORY = PDS_STATE_SIZE - SETUP_SIZE;

type Values = CompatibleValues & { readonly recovery: number };

/**
 * A Pensando device with the habits of its driver (drivers/vfio/pci/pds/lm.c, vfio_dev.c and pci_drv.c, Linux 7.1). What firmware
 * puts into its state is not public: here it is the setup block and the memory.
 *
 * - The stream has the length that firmware says; MIG_DATA_SIZE is 65536 all the same.
 * - Nothing is checked while it is written; firmware judges at the exit.
 * - A write that ends beyond the buffer is short, and the next is `EINVAL` (pds_vfio_restore_write).
 * - Firmware may recover from a failure of its own: a device that does not simply run is in ERROR then, its data fd is dead, and every
 *   SET is `EIO` until a reset (pds_vfio_recovery, pds_vfio_set_device_state). `recovery` says before which read or write.
 * - There is no VFIO_MIG_GET_PRECOPY_INFO in any state.
 */
export class PdsReal extends BufferDevice {
  readonly #values: Values;
  readonly #memory: SimMemory;
  readonly #setup: Setup;

  constructor(values: Values, migrationFlags: number, magic: number, memory: SimMemory) {
    super(values, migrationFlags, PDS_STATE_SIZE, memory);
    this.#values = values;
    this.#memory = memory;
    const { version, compat, size } = values;
    this.#setup = { magic, version, compat, size };
  }

  override setState(target: V2State): V2DataSession | undefined {
    if (this.getState() === V2.ERROR) throw simError('EIO', 'is in ERROR until it is reset');
    return super.setState(target);
  }

  protected saveState(): number {
    this.buffer.fill(0);
    this.buffer.set(setupBlock(this.#setup));
    this.buffer.set(this.#memory.bar, SETUP_SIZE);
    return SETUP_SIZE + this.#memory.bar.length;
  }

  protected load(): ErrnoName | undefined {
    const end = SETUP_SIZE + this.#memory.bar.length;
    if (this.my.filled < end || !isFor(this.#setup, this.buffer)) return 'EINVAL';
    this.#memory.bar.set(this.buffer.subarray(SETUP_SIZE, end));
    return undefined;
  }

  protected override strike(step: 'read' | 'write'): void {
    super.strike(step);
    const { reads, writes } = this.my;
    if (reads + writes !== this.#values.recovery) return;
    this.breakDown();
    throw simError('ENODEV', 'firmware has recovered: the session has ended');
  }

  protected override get room(): number {
    return Number.MAX_SAFE_INTEGER;
  }

  protected override write(from: Uint8Array): number {
    const left = this.buffer.length - this.my.position;
    if (left === 0 && from.length > 0) throw simError('EINVAL', `the buffer has ${this.buffer.length} bytes`);
    return super.write(from.subarray(0, left));
  }

  protected override precopyInfoOf(): never {
    throw simError('ENOTTY', 'no precopy info');
  }
}
