import { VFIO_MIGRATION_P2P, VFIO_MIGRATION_PRE_COPY } from '../abi/vfio-v2.ts';
import { checkedBytes } from '../checked.ts';
import { hasErrno } from '../error.ts';
import { sleepUntilReady, whenReady, type WaitForDevice } from '../wait.ts';
import { begunSession, readData } from './data-fd.ts';
import type { V2DataSession, V2Device } from './device.ts';
import { V2, type V2State } from './states.ts';

/** Receives each piece of the state, in order. The memory is reused after the call. */
export type Sink = (piece: Uint8Array) => void;

/** What QEMU 10 allocates for the data of one device at most (hw/vfio/migration.c: VFIO_MIG_DEFAULT_DATA_BUFFER_SIZE). */
const LARGEST_BLOCK = 1024 * 1024;

/**
 * How a v2 VMM saves a device, as QEMU 10 does it (hw/vfio/migration.c): pre-copy if it is offered, blocks of at most
 * 1 MiB, then stop-and-copy to the end of the stream. One object saves once.
 */
export class V2Save {
  readonly #device: V2Device;
  readonly #sink: Sink;
  readonly #wait: WaitForDevice;
  readonly #block: Uint8Array;
  #session: V2DataSession | undefined;

  constructor(device: V2Device, sink: Sink, wait: WaitForDevice = sleepUntilReady) {
    this.#device = device;
    this.#sink = sink;
    this.#wait = wait;
    this.#block = new Uint8Array(Math.min(LARGEST_BLOCK, Math.max(4096, this.#stopCopyLength())));
  }

  #stopCopyLength(): number {
    try {
      return checkedBytes('stop_copy_length', this.#device.stopCopyLength());
    } catch {
      return LARGEST_BLOCK; // QEMU takes 100 GiB here, which keeps its migration from ever converging
    }
  }

  /** Begins pre-copy, if the device has it and runs. */
  setup(): void {
    if ((this.#device.migrationFlags & VFIO_MIGRATION_PRE_COPY) === 0) return;
    if (this.#device.getState() === V2.RUNNING) {
      this.#session = begunSession(V2.PRE_COPY, this.#setState(V2.PRE_COPY));
    }
  }

  /** The bytes that pre-copy would still send: initial and dirty. */
  pending(): number {
    if (this.#session === undefined) return 0;
    const session = this.#session;
    const { initialBytes, dirtyBytes } = whenReady(() => session.precopyInfo(), this.#wait);
    return checkedBytes('initial_bytes', initialBytes) + checkedBytes('dirty_bytes', dirtyBytes);
  }

  /** Sends one block in pre-copy; returns its bytes. 0 and ENOMSG both mean that there is no data now. */
  iterate(): number {
    return this.#session === undefined ? 0 : this.#sendBlock(this.#session);
  }

  /** Stops the device as a VM stop does: first P2P, if the device has it, then fully. */
  stop(): void {
    const preCopy = this.#session !== undefined;
    if ((this.#device.migrationFlags & VFIO_MIGRATION_P2P) !== 0) {
      this.#setState(preCopy ? V2.PRE_COPY_P2P : V2.RUNNING_P2P);
    }
    if (preCopy) this.#setState(V2.STOP_COPY);
    else this.#setState(V2.STOP);
  }

  /** Sends everything up to the end of the stream and leaves the device in STOP. Returns the bytes sent. */
  complete(): number {
    this.#session = begunSession(V2.STOP_COPY, this.#setState(V2.STOP_COPY) ?? this.#session);
    let total = 0;
    for (;;) {
      const sent = this.#sendBlock(this.#session);
      if (sent === 0) break;
      total += sent;
    }
    this.#setState(V2.STOP);
    this.cleanup();
    return total;
  }

  /** Ends the session before its data ends, as after a cancel or a failure: the device runs. */
  cancel(): void {
    this.#setState(V2.RUNNING);
    this.cleanup();
  }

  /** Closes the data session, and changes no state. */
  cleanup(): void {
    this.#session?.close();
    this.#session = undefined;
  }

  /** A change may have to wait for what the driver is doing, as mlx5's does while the firmware saves an image. */
  #setState(state: V2State): V2DataSession | undefined {
    return whenReady(() => this.#device.setState(state), this.#wait);
  }

  #sendBlock(session: V2DataSession): number {
    let length: number;
    try {
      length = whenReady(() => readData(session, this.#block), this.#wait);
    } catch (error) {
      if (hasErrno(error, 'ENOMSG')) return 0;
      throw error;
    }
    if (length === 0) return 0;
    session.beginRead?.();
    this.#sink(this.#block.subarray(0, length));
    return length;
  }
}
