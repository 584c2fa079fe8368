import { ShimError } from '../../error.ts';
import { sleepUntilReady, whenReady, type WaitForDevice } from '../../wait.ts';
import type { DraftDevice } from './device.ts';
import { DraftAccess } from './registers.ts';
import { S2018, type State2018 } from './states.ts';

/**
 * How a VMM of the first proposal saves a device: after the patches for QEMU that were published in October 2018 (Kirti Wankhede, hw/vfio/
 * migration.c: vfio_migration_state_notifier, vfio_save_iterate, vfio_save_complete_precopy). Those speak by an ioctl; here each of its
 * requests is the accesses to the registers that took its place a month later.
 */
export class Draft2018Save {
  readonly #registers: DraftAccess<'draft-2018'>;
  readonly #sink: (buffer: Uint8Array) => void;
  readonly #wait: WaitForDevice;
  /** What was written last: the VMM reads no state, and drops writes that would change none. */
  #state: State2018 = S2018.NONE;
  #runs = true;
  #preCopyOnly = 0;
  #compatible = 0;
  #postCopyOnly = 0;

  constructor(device: DraftDevice, sink: (buffer: Uint8Array) => void, wait: WaitForDevice = sleepUntilReady) {
    this.#registers = new DraftAccess(device, 'draft-2018');
    this.#sink = sink;
    this.#wait = wait;
  }

  /** The migration is set up, and active: a VM that runs enters pre-copy, a paused one stop-and-copy. */
  setup(runs = true): void {
    this.#runs = runs;
    this.#setState(S2018.MIGRATION_SETUP);
    this.#setState(runs ? S2018.MIGRATION_PRECOPY : S2018.MIGRATION_STOPNCOPY);
  }

  /** save_pending: what the VMM is told is left, of all three kinds. */
  pending(threshold = 0): number {
    const registers = this.#registers;
    whenReady(() => registers.write('pending_threshold_size', threshold), this.#wait);
    this.#preCopyOnly = whenReady(() => registers.estimate('pending_precopy_only'), this.#wait);
    this.#compatible = whenReady(() => registers.estimate('pending_compatible'), this.#wait);
    this.#postCopyOnly = whenReady(() => registers.estimate('pending_postcopy_only'), this.#wait);
    return Math.min(Number.MAX_SAFE_INTEGER, this.#preCopyOnly + this.#compatible + this.#postCopyOnly);
  }

  /** save_iterate, if is_active_iterate: one buffer; returns its bytes. */
  iterate(): number {
    return this.#isActive() ? this.#sendBuffer() : 0;
  }

  /** The VM stops, which this VMM tells no device. */
  stop(): void {
    this.#runs = false;
  }

  /** save_complete_precopy: everything that is left, then SAVE_COMPLETED. Returns the bytes sent. */
  complete(): number {
    this.#runs = false;
    this.#setState(S2018.MIGRATION_STOPNCOPY);
    let total = 0;
    do {
      this.pending();
      if (this.#isActive()) {
        const sent = this.#sendBuffer();
        if (sent === 0) break;
        total += sent;
      } else if (this.#compatible > 0) {
        // the published loop asks on for ever
        throw new ShimError(
          'ERR_DEVICE',
          `draft-2018 driver: stopped, it has ${this.#compatible} bytes pending as compatible and none as postcopy_only`,
          { errno: 'EIO' },
        );
      }
    } while (this.#compatible + this.#postCopyOnly > 0);
    this.#setState(S2018.MIGRATION_SAVE_COMPLETED);
    return total;
  }

  /** The migration is cancelled. The VM that runs on says so itself, with RUNNING. */
  cancel(): void {
    this.#setState(S2018.MIGRATION_CANCELLED);
  }

  /** The migration has failed. */
  fail(): void {
    this.#setState(S2018.MIGRATION_FAILED);
  }

  /** The VM starts. */
  start(): void {
    this.#runs = true;
    this.#setState(S2018.RUNNING);
  }

  #isActive(): boolean {
    return this.#runs ? this.#preCopyOnly > 0 : this.#postCopyOnly > 0;
  }

  #sendBuffer(): number {
    const offset = whenReady(() => this.#registers.count('data_offset'), this.#wait);
    const size = whenReady(() => this.#registers.count('data_size'), this.#wait);
    if (size > 0) this.#sink(this.#registers.shown(offset, size));
    return size;
  }

  #setState(state: State2018): void {
    if (state === this.#state) return;
    whenReady(() => this.#registers.write('device_state', state), this.#wait);
    this.#state = state;
  }
}
