import type { V1Registers } from '../../src/v1/region.ts';
import { DATA_OFFSET, V1Region } from '../../src/v1/region.ts';
import type { V1Device } from '../../src/v1/device.ts';
import type { V2DataSession, V2Device } from '../../src/v2/device.ts';
import { statePath } from '../../src/v2/fsm.ts';
import { V2, type V2State } from '../../src/v2/states.ts';

/*
 * Devices of more state than anybody has memory for. Every `STRIDE` bytes the stream says where it is, the rest of it is
 * not touched. Whoever moves it out of order, twice or not at all is found out by the next mark, or by the count.
 */

const STRIDE = 65_536;

function toMark(position: number): number {
  return (STRIDE - (position % STRIDE)) % STRIDE;
}

export function mark(into: Uint8Array, position: number): void {
  const view = new DataView(into.buffer, into.byteOffset, into.length);
  for (let at = toMark(position); at + 8 <= into.length; at += STRIDE) {
    view.setBigUint64(at, BigInt(position + at), true);
  }
}

/** Throws if bytes that claim to be at a position of the stream are not. */
export function checkMarks(bytes: Uint8Array, position: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = toMark(position); at + 8 <= bytes.length; at += STRIDE) {
    const found = view.getBigUint64(at, true);
    if (found !== BigInt(position + at)) throw new Error(`byte ${position + at} of the stream is byte ${found}`);
  }
}

/** A v2 device with this many bytes in STOP_COPY; `written` counts what came in. */
export class EndlessV2 implements V2Device {
  readonly migrationFlags = 1;
  readonly size: number;
  written = 0;
  #state: V2State = V2.RUNNING;
  #position = 0;

  constructor(size: number) {
    this.size = size;
  }

  getState(): V2State {
    return this.#state;
  }

  setState(target: V2State): V2DataSession | undefined {
    const before = this.#state;
    this.#state = statePath(this.migrationFlags, before, target).at(-1) ?? before;
    if (this.#state === before) return undefined;
    this.#position = 0;
    return this.openSession();
  }

  openSession(): V2DataSession | undefined {
    if (this.#state !== V2.STOP_COPY && this.#state !== V2.RESUMING) return undefined;
    return {
      read: (into) => {
        const length = Math.min(into.length, this.size - this.#position);
        mark(into.subarray(0, length), this.#position);
        this.#position += length;
        return length;
      },
      write: (from) => {
        checkMarks(from, this.written);
        this.written += from.length;
        return from.length;
      },
      precopyInfo: () => ({ initialBytes: 0, dirtyBytes: 0 }),
      close: () => {
        // nothing to release
      },
    };
  }

  stopCopyLength(): number {
    return this.size;
  }

  reset(): void {
    this.#state = V2.RUNNING;
  }
}

/** A v1 device with this many bytes in stop-and-copy; `loaded` counts what came in. */
export class EndlessV1 implements V1Registers {
  readonly size: number;
  readonly device: V1Device;
  loaded = 0;
  #state = 1;
  #position = 0;
  #shown = 0;
  readonly #section: Uint8Array;

  constructor(size: number, section: number) {
    this.size = size;
    this.#section = new Uint8Array(section);
    this.device = new V1Region(this, this.#section);
  }

  readDeviceState(): number {
    return this.#state;
  }

  writeDeviceState(value: number): void {
    this.#state = value;
    this.#position = 0;
    this.#shown = 0;
  }

  readPendingBytes(): number {
    this.#position += this.#shown;
    this.#shown = 0;
    return this.#state === 2 ? this.size - this.#position : 0;
  }

  readDataOffset(): number {
    if (this.#state === 2 && this.#shown === 0) {
      this.#shown = Math.min(this.#section.length, this.size - this.#position);
      mark(this.#section.subarray(0, this.#shown), this.#position);
    }
    return DATA_OFFSET;
  }

  readDataSize(): number {
    return this.#shown;
  }

  writeDataSize(size: number): void {
    checkMarks(this.#section.subarray(0, size), this.loaded);
    this.loaded += size;
  }

  reset(): void {
    this.writeDeviceState(1);
  }
}
