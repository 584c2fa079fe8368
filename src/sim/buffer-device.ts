import type { ErrnoName } from '../abi/errno.ts';
import { isPreCopy, V2, type V2State } from '../v2/states.ts';
import type { PrecopyInfo } from '../v2/device.ts';
import type { StreamValues } from './common-options.ts';
import type { SimMemory } from './memory.ts';
import { simError } from './sim-error.ts';
import { Session, SimV2 } from './v2-sim.ts';

/**
 * A simulated device whose driver puts its state into one buffer of a fixed size, as those of QAT, HiSilicon and Pensando do: what is
 * to be read lies there when a state is entered, and what is written is judged there. MIG_DATA_SIZE is the buffer's size, always.
 */
export abstract class BufferDevice extends SimV2 {
  /** In memory that a successor process finds: a call that is served twice writes the same bytes to the same place. */
  protected readonly buffer: Uint8Array;

  readonly #size: number;

  constructor(values: StreamValues, migrationFlags: number, size: number, memory: SimMemory) {
    super(values, migrationFlags, memory);
    this.#size = size;
    this.buffer = memory.kept;
  }

  /** Fills the buffer on entry into PRE_COPY, and returns how much of it can be read. */
  protected saveSetup(): number {
    return 0;
  }

  /** The same on entry into STOP_COPY. */
  protected abstract saveState(): number;

  /** RESUMING begins. */
  protected beginLoad(): void {
    // a driver that allocates its buffer for each session finds zeros in it
    this.buffer.fill(0);
  }

  /** Bytes were written, and taken: the errno with which the driver answers nevertheless. */
  protected written(): ErrnoName | undefined {
    return undefined;
  }

  /** RESUMING is left: what lies in the buffer becomes the device's state, or an errno says why it does not. */
  protected abstract load(): ErrnoName | undefined;

  stopCopyLength(): number {
    return this.#size;
  }

  protected leaving(from: V2State, _to: V2State): void {
    const errno = from === V2.RESUMING ? this.load() : undefined;
    if (errno !== undefined) throw simError(errno, 'leaving RESUMING: the state was not loaded');
  }

  protected override entering(to: V2State, begins: boolean): void {
    const { my } = this;
    if (to === V2.STOP_COPY) my.filled = this.saveState();
    else if (isPreCopy(to) && begins) my.filled = this.saveSetup();
    else if (to === V2.RESUMING && begins) this.beginLoad();
  }

  protected read(into: Uint8Array): number {
    this.strike('read');
    const { my } = this;
    const length = Math.min(this.most, into.length, Math.max(0, my.filled - my.position));
    into.set(this.buffer.subarray(my.position, my.position + length));
    my.position += length;
    return length;
  }

  /** The room is looked at before the session (qat_vf_resume_write, hisi_acc_vf_resume_write; Linux 6.12). */
  protected override writeTo(id: number, from: Uint8Array): number {
    const { session, session_id, position } = this.my;
    const at = session === Session.RESUMING && session_id === id ? position : 0; // f_pos of a data fd whose session has ended
    if (at + from.length > this.room) throw simError('ENOMEM', `the state has ${this.room} bytes`);
    return super.writeTo(id, from);
  }

  /** What a write must fit into. */
  protected get room(): number {
    return this.buffer.length;
  }

  protected write(from: Uint8Array): number {
    this.strike('write');
    const { my } = this;
    const piece = from.subarray(0, this.most);
    this.buffer.set(piece, my.position);
    my.position += piece.length;
    my.filled += piece.length;
    const errno = this.written();
    if (errno !== undefined) throw simError(errno, 'the state is of an incompatible device');
    return piece.length;
  }

  protected precopyInfo(): PrecopyInfo {
    return { initialBytes: Math.max(0, this.my.filled - this.my.position), dirtyBytes: 0 };
  }
}
