import type { ErrnoName } from '../abi/errno.ts';
import { struct } from '../abi/struct.ts';
import type { PrecopyInfo } from '../v2/device.ts';
import { isPreCopy, V2, type V2State } from '../v2/states.ts';
import type { StreamValues } from './common-options.ts';
import type { SimMemory } from './memory.ts';
import { simError } from './sim-error.ts';
import { PRIVATE_OFFSET, SimV2 } from './v2-sim.ts';

/** What begins a record (drivers/vfio/pci/virtio/common.h: struct virtiovf_migration_header, Linux 7.1). */
const header = struct('virtiovf_migration_header', 16, {
  record_size: ['u64', 0],
  flags: ['u32', 8],
  tag: ['u32', 12],
});
const TAG_DEVICE_DATA = 0;
const FLAG_OPTIONAL = 1;
const LARGEST_RECORD = 2n ** 32n - 1n;

/** What begins the device's parts, in front of its memory. */
const parts = struct('sim_virtio_parts', 16, { compat: ['u32', 0], reserved: ['u32', 4], size: ['u64', 8] });

/** Bytes of the device's parts, as the device itself counts them. */
function partsSize(size: number): number {
  return parts.size + size;
}

/** Two states: the one that is being read, and the one that is made behind it. */
export function virtioKeptSize(size: number): number {
  return 2 * partsSize(size);
}

const sim_virtio = struct('sim_virtio', 64, {
  /** Records that the session has made. */
  records: ['u32', 0],
  /** How often the user has asked for precopy info. */
  asked: ['u32', 4],
  /** Of the record that is being written: bytes of its header, and of what follows. */
  header_taken: ['u32', 8],
  payload_taken: ['count', 16],
  /** The header, once it is complete. */
  record_size: ['count', 24],
  tag: ['u32', 32],
});
const HEADER_OFFSET = PRIVATE_OFFSET + sim_virtio.size;

export type VirtioValues = StreamValues & { readonly compat: number; readonly ratelimit: number };

/**
 * A virtio device with the habits of its driver (drivers/vfio/pci/virtio/migrate.c, Linux 7.1). A record is the whole state. One is made
 * on entry into PRE_COPY (virtiovf_pci_save_device_data), one whenever VFIO_MIG_GET_PRECOPY_INFO finds that all was read and the device
 * has something (virtiovf_precopy_ioctl), which it asks the device at most once a second; and one on entry into STOP_COPY
 * (virtiovf_pci_save_device_final_data). So the state is in the stream as often as that, each as it was when it was made.
 *
 * - The temporary end is `ENOMSG`. No call blocks.
 * - MIG_DATA_SIZE is one state without the header of its record: less than the stream, always.
 * - Records are checked and loaded within the write that completes them. What is refused ends the file: every later write is
 *   `ENODEV`. The exit from RESUMING succeeds all the same, after half a record or none too (virtiovf_pci_step_device_state_locked).
 */
export class VirtioDevice extends SimV2 {
  readonly #values: VirtioValues;
  readonly #memory: SimMemory;
  readonly #own: ReturnType<typeof sim_virtio.view>;
  readonly #header: Uint8Array;

  constructor(values: VirtioValues, migrationFlags: number, memory: SimMemory) {
    super(values, migrationFlags, memory);
    this.#values = values;
    this.#memory = memory;
    this.#own = sim_virtio.view(memory.state, PRIVATE_OFFSET);
    this.#header = memory.state.subarray(HEADER_OFFSET, HEADER_OFFSET + header.size);
  }

  stopCopyLength(): number {
    return partsSize(this.#values.size);
  }

  get #recordSize(): number {
    return header.size + this.stopCopyLength();
  }

  /** Where the stream ends, so far. */
  get #end(): number {
    return this.#own.records * this.#recordSize;
  }

  protected leaving(): void {
    // the exit from RESUMING asks for nothing
  }

  protected override endSession(): void {
    super.endSession();
    Object.assign(this.#own, { records: 0, asked: 0, header_taken: 0, payload_taken: 0 });
  }

  protected override entering(to: V2State, begins: boolean): void {
    if (to === V2.STOP_COPY || (isPreCopy(to) && begins)) this.#makeRecord();
  }

  #makeRecord(): void {
    const { bar } = this.#memory;
    const state = this.#kept(this.#own.records);
    parts.encode({ compat: this.#values.compat, size: BigInt(bar.length) }, state);
    state.set(bar, parts.size);
    this.#own.records += 1;
  }

  /** Where the state of a record is kept. No more than the last two are needed: a new one is made when one is unread at most. */
  #kept(record: number): Uint8Array {
    const size = this.stopCopyLength();
    return this.#memory.kept.subarray((record % 2) * size, (record % 2) * size + size);
  }

  protected read(into: Uint8Array): number {
    this.strike('read');
    const { my } = this;
    const left = this.#end - my.position;
    if (left === 0 && into.length > 0 && this.getState() !== V2.STOP_COPY) {
      throw simError('ENOMSG', 'no data now', 'ERR_NO_DATA_NOW');
    }
    const length = Math.min(this.most, into.length, left);
    for (let done = 0; done < length;) done += this.#copy(my.position + done, into.subarray(done, length));
    my.position += length;
    return length;
  }

  /** Copies what one record has at a place of the stream. */
  #copy(position: number, into: Uint8Array): number {
    const record = Math.floor(position / this.#recordSize);
    const at = position % this.#recordSize;
    const head = header.encode({ record_size: BigInt(this.stopCopyLength()), tag: TAG_DEVICE_DATA });
    const from = at < header.size ? head.subarray(at) : this.#kept(record).subarray(at - header.size);
    const piece = from.subarray(0, into.length);
    into.set(piece);
    return piece.length;
  }

  protected precopyInfo(): PrecopyInfo {
    const own = this.#own;
    const found = own.asked % this.#values.ratelimit === 0 ? this.stopCopyLength() : 0;
    own.asked += 1;
    const { position } = this.my;
    const left = this.#end - position;
    if (position < this.#recordSize) return { initialBytes: this.#recordSize - position, dirtyBytes: 0 };
    if (left === 0 && found > 0) this.#makeRecord();
    return { initialBytes: 0, dirtyBytes: left + found };
  }

  protected write(from: Uint8Array): number {
    this.strike('write');
    const { my } = this;
    if (my.refused === 1) throw simError('ENODEV', 'the file is in error');
    const piece = from.subarray(0, this.most);
    for (let done = 0; done < piece.length;) done += this.#take(piece.subarray(done));
    my.position += piece.length;
    return piece.length;
  }

  #take(bytes: Uint8Array): number {
    const own = this.#own;
    if (own.header_taken < header.size) {
      const part = bytes.subarray(0, header.size - own.header_taken);
      this.#header.set(part, own.header_taken);
      own.header_taken += part.length;
      if (own.header_taken === header.size) this.#beginRecord();
      return part.length;
    }
    const part = bytes.subarray(0, own.record_size - own.payload_taken);
    const room = this.#kept(0).subarray(own.payload_taken); // of a record that is too long the rest is only counted
    room.set(part.subarray(0, room.length));
    own.payload_taken += part.length;
    if (own.payload_taken === own.record_size) this.#endRecord();
    return part.length;
  }

  #beginRecord(): void {
    const own = this.#own;
    const { record_size, flags, tag } = header.decode(this.#header);
    if (record_size > LARGEST_RECORD) throw this.#refused('ENOMEM', `a record of ${record_size} bytes`);
    if (tag !== TAG_DEVICE_DATA && (flags & FLAG_OPTIONAL) === 0) throw this.#refused('EOPNOTSUPP', `tag ${tag}`);
    own.record_size = Number(record_size);
    own.tag = tag;
    own.payload_taken = 0;
    if (record_size === 0n) this.#endRecord();
  }

  #endRecord(): void {
    const own = this.#own;
    own.header_taken = 0;
    if (own.tag !== TAG_DEVICE_DATA) return;
    const state = this.#kept(0);
    const { compat, size } = parts.decode(state);
    const { bar } = this.#memory;
    if (own.record_size !== state.length || compat !== this.#values.compat || size !== BigInt(bar.length)) {
      throw this.#refused('EINVAL', 'the device refuses these parts');
    }
    bar.set(state.subarray(parts.size));
  }

  #refused(errno: ErrnoName, why: string): Error {
    this.my.refused = 1;
    return simError(errno, why);
  }
}
