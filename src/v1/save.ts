import { sleepUntilReady, whenReady, type WaitForDevice } from '../wait.ts';
import { pieceAt, wholeMappedAt } from './data-section.ts';
import type { V1Device } from './device.ts';
import { V1RegisterAccess } from './registers.ts';
import {
  VFIO_DEVICE_STATE_V1_RESUMING,
  VFIO_DEVICE_STATE_V1_RUNNING,
  VFIO_DEVICE_STATE_V1_SAVING,
} from '../abi/vfio-v1.ts';

/** Receives each buffer of the state, in order, as one transaction. The memory is reused after the call. */
export type V1Sink = (buffer: Uint8Array) => void;

/**
 * How a v1 VMM saves a device, as QEMU 7.2 does it (hw/vfio/migration.c): which registers it reads when, that it does
 * not read pending_bytes again before it changes the state, and that it keeps bits it did not mean to change.
 */
export class V1Save {
  readonly #device: V1Device;
  readonly #registers: V1RegisterAccess;
  readonly #sink: V1Sink;
  readonly #wait: WaitForDevice;
  #pending = 0;
  #copy = new Uint8Array(0);

  constructor(device: V1Device, sink: V1Sink, wait: WaitForDevice = sleepUntilReady) {
    this.#device = device;
    this.#registers = new V1RegisterAccess(device);
    this.#sink = sink;
    this.#wait = wait;
  }

  /** save_setup: a running device enters pre-copy, a stopped one stop-and-copy. */
  setup(): void {
    this.#changeState(~0, VFIO_DEVICE_STATE_V1_SAVING);
  }

  /** save_pending: what the VMM is told is left. */
  pending(): number {
    this.#pending = whenReady(() => this.#registers.pendingBytes(), this.#wait);
    return this.#pending;
  }

  /** save_iterate: one buffer; returns its bytes. */
  iterate(): number {
    if (this.#pending === 0 && this.pending() === 0) return 0;
    const sent = this.#sendBuffer();
    this.#pending = 0;
    return sent;
  }

  /** Leaves pre-copy for stop-and-copy, as the VM stops. */
  stop(): void {
    this.#changeState(~VFIO_DEVICE_STATE_V1_RUNNING, 0);
  }

  /** save_complete_precopy: everything that is left, then SAVING ends. Returns the bytes sent. */
  complete(): number {
    this.#changeState(~VFIO_DEVICE_STATE_V1_RUNNING, VFIO_DEVICE_STATE_V1_SAVING);
    let total = 0;
    while (this.pending() > 0) {
      const sent = this.#sendBuffer();
      if (sent === 0) break;
      total += sent;
    }
    this.#changeState(~VFIO_DEVICE_STATE_V1_SAVING, 0);
    return total;
  }

  /** A failed or cancelled migration: the device runs on. */
  cancel(): void {
    this.#changeState(~(VFIO_DEVICE_STATE_V1_SAVING | VFIO_DEVICE_STATE_V1_RESUMING), VFIO_DEVICE_STATE_V1_RUNNING);
  }

  #changeState(mask: number, value: number): void {
    whenReady(() => this.#registers.changeDeviceState((state) => (state & mask) | value), this.#wait);
  }

  #sendBuffer(): number {
    const { offset, size } = whenReady(() => this.#registers.dataBuffer(), this.#wait);
    if (size === 0) return 0;
    this.#sink(wholeMappedAt(this.#device, offset, size) ?? this.#copyOf(offset, size));
    return size;
  }

  /** A buffer that is not mapped. */
  #copyOf(begin: number, size: number): Uint8Array {
    if (this.#copy.length < size) this.#copy = new Uint8Array(size);
    const buffer = this.#copy.subarray(0, size);
    for (let done = 0; done < size;) {
      const offset = begin + done;
      const piece = buffer.subarray(done, done + pieceAt(offset, begin, size - done));
      whenReady(() => this.#device.read(offset, piece), this.#wait);
      done += piece.length;
    }
    return buffer;
  }
}
