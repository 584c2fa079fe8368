import { vfio_device_migration_info } from '../../abi/vfio-v1.ts';
import type { V1Device } from '../../v1/device.ts';

const { fields, size: REGISTERS } = vfio_device_migration_info;
const [, DATA_OFFSET_AT] = fields.data_offset;
const [, DATA_SIZE_AT] = fields.data_size;

/** Bytes of a region, by its index. */
export interface Place {
  readonly region: number;
  readonly at: number;
  readonly count: number;
}

/** How a device's data section is reached by messages, whatever else leads there. */
export interface Messages {
  /** The most bytes that one message reads, and writes. */
  readonly readLimit: number;
  readonly writeLimit: number;
  /** Begins a read of the migration region that is sure to come. */
  prepare(read: Place): void;
  /** Makes accesses by messages, although there is a file. */
  byMessage(access: () => void): void;
}

/**
 * A v1 device of which a buffer goes in one message if it fits, whatever pieces its user moves: servers count on that. libvfio-user's sample
 * takes and gives whole buffers only, and has nothing of them in the memory that it lets its clients map (1569a37, samples/server.c:
 * migration_read_data, migration_write_data). SPDK's moves the beginning of its memory, whatever offset a message names (22.01,
 * lib/nvmf/vfio_user.c: vfio_user_migration_read_data, vfio_user_migration_write_data): a buffer that does not fit goes through that memory.
 */
export class BufferedV1 implements V1Device {
  readonly mapped = undefined;
  readonly #device: V1Device;
  readonly #region: number;
  readonly #messages: Messages;
  /** What the registers said last. */
  #offset = 0;
  #size = 0;
  /** The buffer that is shown, once a part of it was asked for. */
  #shown: Uint8Array | undefined;
  /** Where buffers lie, one after the other. */
  #memory = new Uint8Array(0);
  /** What was written of a buffer whose size was not told yet, and where it begins; nothing is kept of one that does not fit. */
  readonly #written: Uint8Array;
  #begin = 0;
  #end = 0;
  #fits = true;

  /** `region`: the index of the migration region. */
  constructor(device: V1Device, region: number, messages: Messages) {
    this.#device = device;
    this.#region = region;
    this.#messages = messages;
    this.#written = new Uint8Array(messages.writeLimit);
  }

  get regionSize(): number {
    return this.#device.regionSize;
  }

  get dataSection(): V1Device['dataSection'] {
    return this.#device.dataSection;
  }

  read(offset: number, into: Uint8Array): void {
    if (offset < REGISTERS) {
      this.#device.read(offset, into);
      this.#note(offset, into);
      return;
    }
    const at = offset - this.#offset;
    const isOfBuffer = at >= 0 && at + into.length <= this.#size;
    if (!isOfBuffer || this.#size > this.#messages.readLimit) this.#device.read(offset, into);
    else into.set(this.#buffer().subarray(at, at + into.length));
  }

  /** The buffer that is shown is going to be read: the server gives it while something else is done. */
  readonly readAhead = (): void => {
    const [at, count] = [this.#offset, this.#size];
    if (count === 0 || count > this.#messages.readLimit || this.#shown !== undefined) return;
    this.#messages.prepare({ region: this.#region, at, count });
  };

  #buffer(): Uint8Array {
    if (this.#shown === undefined) {
      if (this.#memory.length < this.#size) this.#memory = new Uint8Array(this.#size);
      const buffer = this.#memory.subarray(0, this.#size);
      this.#messages.byMessage(() => this.#device.read(this.#offset, buffer));
      this.#shown = buffer;
    }
    return this.#shown;
  }

  #note(offset: number, value: Uint8Array): void {
    if (value.length !== 8) return;
    const number = Number(new DataView(value.buffer, value.byteOffset).getBigUint64(0, true));
    if (offset === DATA_SIZE_AT) {
      if (number !== this.#size) this.#shown = undefined;
      this.#size = number;
    } else if (offset === DATA_OFFSET_AT) {
      if (number !== this.#offset) this.#forget();
      this.#offset = number;
    } else this.#forget(); // pending_bytes: the next buffer is another
  }

  #forget(): void {
    this.#shown = undefined;
    this.#size = 0;
  }

  write(offset: number, from: Uint8Array): void {
    if (offset >= REGISTERS) {
      this.#keep(offset, from);
      return;
    }
    const bytes = this.#written.subarray(0, this.#end);
    this.#end = 0;
    this.#fits = true;
    if (bytes.length > 0) this.#messages.byMessage(() => this.#device.write(this.#begin, bytes));
    this.#forget();
    this.#device.write(offset, from);
  }

  #keep(offset: number, from: Uint8Array): void {
    if (this.#fits && this.#end === 0) this.#begin = offset;
    const isNext = offset === this.#begin + this.#end;
    if (this.#fits && isNext && from.length <= this.#written.length - this.#end) {
      this.#written.set(from, this.#end);
      this.#end += from.length;
      return;
    }
    const bytes = this.#written.subarray(0, this.#end);
    this.#end = 0;
    this.#fits = false;
    if (bytes.length > 0) this.#device.write(this.#begin, bytes);
    this.#device.write(offset, from);
  }

  reset(): void {
    this.#end = 0;
    this.#fits = true;
    this.#forget();
    this.#device.reset();
  }
}
