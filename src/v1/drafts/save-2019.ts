import { sleepUntilReady, whenReady, type WaitForDevice } from '../../wait.ts';
import type { DraftDevice } from './device.ts';
import { DraftAccess } from './registers.ts';
import { S2019, type State2019 } from './states.ts';

/**
 * How a VMM of February 2019 saves a device: after the patches for QEMU, version 3 (Kirti Wankhede, hw/vfio/migration.c: vfio_save_setup,
 * vfio_save_buffer, vfio_save_complete_precopy). It never reads data_size: a buffer is what is pending, as far as the data section goes.
 */
export class Draft2019Save {
  readonly #device: DraftDevice;
  readonly #registers: DraftAccess<'draft-2019'>;
  readonly #sink: (buffer: Uint8Array) => void;
  readonly #wait: WaitForDevice;
  #pending = 0;

  constructor(device: DraftDevice, sink: (buffer: Uint8Array) => void, wait: WaitForDevice = sleepUntilReady) {
    this.#device = device;
    this.#registers = new DraftAccess(device, 'draft-2019');
    this.#sink = sink;
    this.#wait = wait;
  }

  /** save_setup: a VM that runs enters pre-copy, a paused one stop-and-copy. */
  setup(runs = true): void {
    this.#setState(runs ? S2019.PRE_COPY : S2019.STOP_COPY);
  }

  /** save_pending: what the VMM is told is left. */
  pending(): number {
    this.#pending = whenReady(() => this.#registers.estimate('pending_bytes'), this.#wait);
    return this.#pending;
  }

  /** save_iterate: one buffer; returns its bytes. data_offset is read even if nothing is pending. */
  iterate(): number {
    return this.#sendBuffer();
  }

  /** The VM stops, which this VMM tells no device. */
  stop(): void {
    // stop-and-copy is what it writes next
  }

  /** save_complete_precopy: everything that is left, then neither bit. Returns the bytes sent. */
  complete(): number {
    this.#setState(S2019.STOP_COPY);
    this.pending();
    let total = 0;
    while (this.#pending > 0) {
      const sent = this.#sendBuffer();
      if (sent === 0) break;
      total += sent;
      if (this.#pending === 0) this.pending();
    }
    this.#setState(S2019.STOPPED_OR_RESUMING);
    return total;
  }

  /** The migration is cancelled, or has failed. */
  cancel(): void {
    this.#setState(S2019.RUNNING);
  }

  #sendBuffer(): number {
    const offset = whenReady(() => this.#registers.count('data_offset'), this.#wait);
    const { dataSection } = this.#device;
    const size = Math.max(0, Math.min(this.#pending, dataSection.offset + dataSection.size - offset));
    if (size > 0) this.#sink(this.#registers.shown(offset, size));
    this.#pending -= size;
    return size;
  }

  #setState(state: State2019): void {
    whenReady(() => this.#registers.write('device_state', state), this.#wait);
  }
}
