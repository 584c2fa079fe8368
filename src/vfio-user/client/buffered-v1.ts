import { vfio_device_migration_info } from '../../abi/vfio-v1.ts';
import type { V1Device } from '../../v1/device.ts';

const { fields, size: REGISTERS } = vfio_device_migration_info;
const [, PENDING_AT] = fields.pending_bytes;
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
  /** Begins a read of the migration region that is sure to come, unless it has begun. */
  prepare(read: Place): void;
  /** Nobody wants what was begun. */
  drop(): void;
  /** Reads by one message: where the bytes lie until they are given back; `undefined` if the server gives fewer. */
  take(read: Place): Uint8Array | undefined;
  giveBack(bytes: Uint8Array): void;
  /** Makes accesses by messages, although there is a file. */
  byMessage(access: () => void): void;
}

/** What the registers say of a buffer that was asked for before the user has asked. */
interface Ahead {
  readonly pending: bigint;
  readonly offset: bigint;
  readonly size: bigint;
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
  /** The next buffer, whose registers were read while the user takes the one that is shown. */
  #ahead: Ahead | undefined;
  /** What the registers still say of the buffer that is shown, if it was such a one. */
  #known: Ahead | undefined;
  /** Only data move, and the server is asked for the next buffer as soon as one is here. */
  #isAhead = false;
  /** The user has asked for its data_offset: the next read of pending_bytes acknowledges it. */
  #isAsked = false;
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
      const known = into.length === 8 ? this.#knownAt(offset) : undefined;
      if (known === undefined) this.#device.read(offset, into);
      else new DataView(into.buffer, into.byteOffset).setBigUint64(0, known, true);
      this.#note(offset, into);
      return;
    }
    const bytes = this.bufferAt(offset, into.length);
    if (bytes === undefined) this.#device.read(offset, into);
    else into.set(bytes);
  }

  bufferAt(offset: number, length: number): Uint8Array | undefined {
    const at = offset - this.#offset;
    const isOfBuffer = at >= 0 && at + length <= this.#size;
    if (!isOfBuffer || !this.#isOneMessage(this.#offset, this.#size)) return undefined;
    return this.#buffer().subarray(at, at + length);
  }

  /**
   * Only data move until the user is told that there are no more: the server gives the buffer that is shown while something else is done, or, once
   * that has come, the next one. Nobody but the server knows that the one before is acknowledged by that, as this has all of it.
   */
  readonly readAhead = (): void => {
    this.#isAhead = true;
    if (this.#shown !== undefined && this.#ahead === undefined) {
      this.#remember();
      this.#ahead = this.#next();
    }
    const [at, count] =
      this.#ahead === undefined ? [this.#offset, this.#size] : [Number(this.#ahead.offset), Number(this.#ahead.size)];
    if (this.#isOneMessage(at, count)) this.#messages.prepare({ region: this.#region, at, count });
  };

  #next(): Ahead {
    const register = (offset: number): bigint => {
      const value = new Uint8Array(8);
      this.#messages.byMessage(() => this.#device.read(offset, value));
      return new DataView(value.buffer).getBigUint64(0, true);
    };
    const pending = register(PENDING_AT);
    if (pending === 0n) return { pending, offset: 0n, size: 0n };
    return { pending, offset: register(DATA_OFFSET_AT), size: register(DATA_SIZE_AT) };
  }

  /** What a register says without the device being asked. */
  #knownAt(offset: number): bigint | undefined {
    if (offset === PENDING_AT) {
      if (this.#shown === undefined && this.#size > 0) this.#messages.drop(); // the buffer is acknowledged, and nobody has taken it
      if (this.#ahead !== undefined) {
        this.#known = this.#ahead;
        this.#ahead = undefined;
      } else if (this.#isAsked) this.#known = undefined;
      this.#isAsked = false;
      return this.#known?.pending;
    }
    if (this.#known === undefined || this.#known.pending === 0n) return undefined;
    if (offset === DATA_OFFSET_AT) return this.#known.offset;
    return offset === DATA_SIZE_AT ? this.#known.size : undefined;
  }

  #buffer(): Uint8Array {
    if (this.#shown === undefined) {
      this.#shown =
        this.#messages.take({ region: this.#region, at: this.#offset, count: this.#size }) ?? this.#readInPieces();
      if (this.#isAhead) {
        this.#remember();
        this.#messages.prepare({ region: this.#region, at: PENDING_AT, count: 8 });
      }
    }
    return this.#shown;
  }

  /** The server's registers are going to tell of the next buffer. */
  #remember(): void {
    this.#known ??= { pending: 1n, offset: BigInt(this.#offset), size: BigInt(this.#size) };
  }

  #isOneMessage(at: number, count: number): boolean {
    return count > 0 && count <= this.#messages.readLimit && at + count <= this.regionSize;
  }

  #readInPieces(): Uint8Array {
    const buffer = new Uint8Array(this.#size);
    this.#messages.byMessage(() => this.#device.read(this.#offset, buffer));
    return buffer;
  }

  #note(offset: number, value: Uint8Array): void {
    if (value.length !== 8) return;
    const number = Number(new DataView(value.buffer, value.byteOffset).getBigUint64(0, true));
    if (offset === DATA_SIZE_AT) {
      if (number !== this.#size) this.#hide();
      this.#size = number;
    } else if (offset === DATA_OFFSET_AT) {
      if (number !== this.#offset) this.#hide();
      this.#offset = number;
      this.#isAsked = true;
    } else this.#hide(); // pending_bytes: the next buffer is another
  }

  #hide(): void {
    if (this.#shown !== undefined) this.#messages.giveBack(this.#shown);
    this.#shown = undefined;
    this.#size = 0;
  }

  /** The device does something else. */
  #forget(): void {
    this.#hide();
    this.#ahead = this.#known = undefined;
    this.#isAsked = this.#isAhead = false;
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
