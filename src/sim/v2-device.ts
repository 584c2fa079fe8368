import type { ErrnoName } from '../abi/errno.ts';
import type { PrecopyInfo } from '../v2/device.ts';
import { isPreCopy, V2, type V2State } from '../v2/states.ts';
import type { StreamValues } from './common-options.ts';
import type { SimMemory } from './memory.ts';
import { simError } from './sim-error.ts';
import { PRIVATE_OFFSET, SimV2 } from './v2-sim.ts';

/** What distinguishes one driver from another: its stream and its habits. */
export interface V2Driver {
  readonly migrationFlags: number;
  /** What begins the stream, and what a destination checks. */
  readonly setup: Uint8Array;
  /** Bytes of the stream behind `setup`. */
  readonly payloadSize: number;
  /** Copies payload from `position` on; `into` ends within the payload. */
  readPayload(position: number, into: Uint8Array): void;
  writePayload(position: number, from: Uint8Array): void;
  /** The errno with which a destination refuses this setup part, while it is being written. */
  checkSetup(setup: Uint8Array): ErrnoName | undefined;
  /** A setup that is refused is not asked about again: the driver takes the rest and lets the device run (mtty). */
  readonly forgetsRefusal: boolean;
}

/**
 * A simulated device with a v2 driver whose stream is a setup part and a payload: the setup part is readable in PRE_COPY, whose
 * temporary end reads as 0, and one session goes on into STOP_COPY.
 */
export class SimV2Device extends SimV2 {
  readonly #driver: V2Driver;
  /** The setup part that is being written, in the device's state memory. */
  readonly #incoming: Uint8Array;

  constructor(values: StreamValues, driver: V2Driver, memory: SimMemory) {
    super(values, driver.migrationFlags, memory);
    this.#driver = driver;
    this.#incoming = memory.state.subarray(PRIVATE_OFFSET, PRIVATE_OFFSET + driver.setup.length);
  }

  stopCopyLength(): number {
    return this.#driver.setup.length + this.#driver.payloadSize;
  }

  protected leaving(from: V2State): void {
    const total = this.stopCopyLength();
    if (from === V2.RESUMING && (this.my.position < total || this.#isRefused())) {
      throw simError('EINVAL', `leaving RESUMING: ${this.my.position} of ${total} bytes were loaded`);
    }
  }

  #isRefused(): boolean {
    return this.my.refused === 1 && !this.#driver.forgetsRefusal;
  }

  protected read(into: Uint8Array): number {
    this.strike('read');
    const { my } = this;
    const { setup } = this.#driver;
    const end = isPreCopy(this.getState()) ? setup.length : this.stopCopyLength();
    const length = Math.min(this.most, into.length, Math.max(0, end - my.position));
    const fromSetup = Math.max(0, Math.min(length, setup.length - my.position));
    if (fromSetup > 0) into.set(setup.subarray(my.position, my.position + fromSetup));
    if (length > fromSetup) {
      this.#driver.readPayload(my.position + fromSetup - setup.length, into.subarray(fromSetup, length));
    }
    my.position += length;
    return length;
  }

  protected write(from: Uint8Array): number {
    if (from.length === 0) return 0;
    this.strike('write');
    const { my } = this;
    const total = this.stopCopyLength();
    if (from.length > total - my.position) throw simError('ENOMEM', `the state has ${total} bytes`);
    if (this.#isRefused()) throw simError('EINVAL', 'the state was refused');
    const { setup } = this.#driver;
    const piece = from.subarray(0, this.most);
    const toSetup = Math.max(0, Math.min(piece.length, setup.length - my.position));
    if (toSetup > 0) this.#incoming.set(piece.subarray(0, toSetup), my.position);
    const completesSetup = toSetup > 0 && my.position + toSetup === setup.length;
    const errno = completesSetup ? this.#driver.checkSetup(this.#incoming) : undefined;
    if (errno !== undefined) my.refused = 1;
    if (piece.length > toSetup && (errno === undefined || this.#driver.forgetsRefusal)) {
      this.#driver.writePayload(my.position + toSetup - setup.length, piece.subarray(toSetup));
    }
    my.position += piece.length;
    if (errno !== undefined) throw simError(errno, 'the state is of an incompatible device');
    return piece.length;
  }

  protected precopyInfo(): PrecopyInfo {
    return { initialBytes: Math.max(0, this.#driver.setup.length - this.my.position), dirtyBytes: 0 };
  }
}
