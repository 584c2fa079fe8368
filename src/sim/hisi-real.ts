import type { ErrnoName } from '../abi/errno.ts';
import { struct } from '../abi/struct.ts';
import { V2, type V2State } from '../v2/states.ts';
import type { CompatibleValues } from './common-options.ts';
import type { SimMemory } from './memory.ts';
import { BufferDevice } from './buffer-device.ts';
import { PRIVATE_OFFSET } from './v2-sim.ts';

/** What a destination must match, the first QM_MATCH_SIZE bytes of the state (hisilicon/hisi_acc_vfio_pci.h: struct acc_vf_data, Linux 6.12). */
const match_data = struct('acc_vf_data', 40, {
  acc_magic: ['u64', 0],
  qp_num: ['u32', 8],
  dev_id: ['u32', 12],
  que_iso_cfg: ['u32', 16],
  qp_base: ['u32', 20],
  vf_qm_state: ['u32', 24],
});
const ACC_DEV_MAGIC = 0xcdcdcdcdfeedaaccn;
const DEVICE_ID = 0xa256;
const READY = 0;
const NOT_READY = 1;

/** sizeof(struct acc_vf_data), Linux 6.12. */
export const HISI_STATE_SIZE = 176;
export const HISI_LARGEST_MEMORY = HISI_STATE_SIZE - match_data.size;

/** What the driver and the device remember besides: a match, as long as the device is open, and whether the queues stand still. */
const sim_hisi = struct('sim_hisi', 8, { match_done: ['u32', 0], stopped: ['u32', 4] });

/**
 * A HiSilicon accelerator with the habits of its driver (drivers/vfio/pci/hisilicon/hisi_acc_vfio_pci.c, Linux 6.12):
 *
 * - Pre-copy gives the match data, 40 bytes. Stop-and-copy gives the rest of 176 bytes, of which the memory is the first part; if
 *   the guest's driver is not up (vf_qm_state_save: QM_NOT_READY), it gives nothing more, and there is no memory to move.
 * - The match data is checked in the write of its last byte. Bytes that do not match were taken, and are refused with `EFAULT` in
 *   every later write too (hisi_acc_vf_resume_write). A match is never checked again, a reset does not change that (match_done).
 * - The exit asks for the length only: 40 bytes load nothing, less than 176 are `EINVAL`, and 176 load, refused or not
 *   (vf_qm_load_data).
 * - A reset ends no session and changes no state: the driver follows one only if its migration flags are 1, and they are 5
 *   (hisi_acc_vf_pci_aer_reset_done).
 * - An entry into STOP_COPY that fails has stopped the device, which its state does not show, and only the way over STOP starts it again
 *   (hisi_acc_vf_set_device_state).
 */
export class HisiReal extends BufferDevice {
  readonly #values: CompatibleValues & { readonly up: boolean };
  readonly #memory: SimMemory;
  readonly #own: ReturnType<typeof sim_hisi.view>;

  constructor(values: CompatibleValues & { readonly up: boolean }, migrationFlags: number, memory: SimMemory) {
    super(values, migrationFlags, HISI_STATE_SIZE, memory);
    this.#values = values;
    this.#memory = memory;
    this.#own = sim_hisi.view(memory.state, PRIVATE_OFFSET);
  }

  /** Whether the queues stand still, which nobody but the guest sees. */
  get isStopped(): boolean {
    return this.#own.stopped === 1;
  }

  /** The device is reset, and the driver does not notice. */
  override reset(): void {
    this.#own.stopped = 0;
    if (this.getState() === V2.ERROR) super.reset(); // which a fault has brought about, and the driver does not know
  }

  protected override entryFailed(to: V2State): void {
    if (to === V2.STOP_COPY) this.#own.stopped = 1;
  }

  protected override leaving(from: V2State, to: V2State): void {
    super.leaving(from, to);
    if (to === V2.STOP || to === V2.STOP_COPY) this.#own.stopped = 1;
    else if (from === V2.STOP && to === V2.RUNNING) this.#own.stopped = 0;
  }

  protected override saveSetup(): number {
    this.buffer.fill(0);
    return this.#saveMatch(READY);
  }

  protected saveState(): number {
    this.buffer.fill(0);
    if (!this.#values.up) return this.#saveMatch(NOT_READY);
    this.buffer.set(this.#memory.bar, this.#saveMatch(READY));
    return this.buffer.length;
  }

  #saveMatch(vf_qm_state: number): number {
    const { compat, version } = this.#values;
    const values = { acc_magic: ACC_DEV_MAGIC, qp_num: compat, dev_id: DEVICE_ID, que_iso_cfg: version, vf_qm_state };
    match_data.encode(values, this.buffer);
    return match_data.size;
  }

  protected override written(): ErrnoName | undefined {
    if (this.#own.match_done === 1 || this.my.filled < match_data.size) return undefined;
    const { acc_magic, qp_num, dev_id, que_iso_cfg } = match_data.decode(this.buffer);
    const { compat, version } = this.#values;
    const matches = acc_magic === ACC_DEV_MAGIC && dev_id === DEVICE_ID && qp_num === compat && que_iso_cfg <= version;
    if (!matches) return 'EFAULT';
    this.#own.match_done = 1;
    return undefined;
  }

  protected load(): ErrnoName | undefined {
    const { filled } = this.my;
    if (filled === match_data.size) return undefined;
    if (filled < this.buffer.length) return 'EINVAL';
    const { bar } = this.#memory;
    bar.set(this.buffer.subarray(match_data.size, match_data.size + bar.length));
    return undefined;
  }
}
