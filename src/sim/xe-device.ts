import type { ErrnoName } from '../abi/errno.ts';
import { errnoNameOrEio, errnoOf, hasErrno } from '../error.ts';
import type { V2DataSession } from '../v2/device.ts';
import { nextState } from '../v2/fsm.ts';
import { V2, type V2State } from '../v2/states.ts';
import type { StreamValues } from './common-options.ts';
import type { SimMemory } from './memory.ts';
import { simError } from './sim-error.ts';
import { PRIVATE_OFFSET, SimV2 } from './v2-sim.ts';
import { encodeDescriptor, PACKET_VERSION, packetHeader, PacketStream, PacketType } from './xe-packets.ts';
import { sim_xe, XeRestore } from './xe-restore.ts';

/** Packets that the device makes ahead of the reader (xe_gt_sriov_pf_migration.c: XE_GT_SRIOV_PF_MIGRATION_RING_SIZE, Linux 7.1). */
const RING = 5;

export type XeValues = StreamValues & {
  readonly compat: number;
  readonly unready: number;
  readonly nosize: boolean;
};

/**
 * An Intel GPU with the habits of its driver (drivers/vfio/pci/xe/main.c, drivers/gpu/drm/xe/xe_sriov_packet.c and
 * xe_sriov_pf_migration.c, Linux 7.1):
 *
 * - The stream is packets: a descriptor, the memory, a trailer. A read blocks until it has all that it asked for, whatever O_NONBLOCK says,
 *   and there is no poll: here it says "not yet" without a readiness. The position of the file stays 0.
 * - A read that fails loses what it had copied, and so do all that follow: the error stays in the place of the packet. `EINTR` comes
 *   before anything was copied.
 * - STOP_COPY and RESUMING are left file first: if the device is not done, the request fails and the state stays, without a data fd.
 *   Of saving that is `EIO` (xe_gt_sriov_pf_control_finish_save_vf), of a state without its trailer `ETIMEDOUT`, of bad data `EIO`.
 * - A packet is judged in the write that completes it, its version with its header. Bytes that the same write has given before
 *   count as refused. What this driver does after a refusal is not simulated: a packet begins.
 * - A request that the state machine refuses stops the VF (xe_vfio_pci_set_device_state): until a reset it takes no pause, resume,
 *   save or restore (`EPERM`).
 * - A MIG_DATA_SIZE that fails is an errno in the size: 2^64 less a few (xe_vfio_pci_get_data_size), shown as 2^53-1 as by a
 *   driver of the kernel here.
 */
export class XeDevice extends SimV2 {
  readonly #values: XeValues;
  readonly #memory: SimMemory;
  readonly #devid: number;
  readonly #own: ReturnType<typeof sim_xe.view>;
  readonly #restore: XeRestore;
  readonly #stream: PacketStream;

  constructor(values: XeValues, migrationFlags: number, devid: number, memory: SimMemory) {
    super(values, migrationFlags, memory);
    this.#values = values;
    this.#devid = devid;
    this.#memory = memory;
    this.#own = sim_xe.view(memory.state, PRIVATE_OFFSET);
    this.#restore = new XeRestore(this.#own, devid, values.compat, memory);
    this.#stream = new PacketStream(values.size);
  }

  override setState(target: V2State): V2DataSession | undefined {
    const now = this.getState();
    if (now !== target && nextState(this.migrationFlags, now, target) === null) this.#own.stopped = 1;
    return super.setState(target);
  }

  stopCopyLength(): number {
    return this.#values.nosize ? Number.MAX_SAFE_INTEGER : this.#stream.length;
  }

  override reset(): void {
    super.reset();
    this.#own.stopped = 0;
  }

  protected override endSession(): void {
    super.endSession();
    const none = {
      ready: 0,
      waited: 0,
      read_errno: 0,
      header_taken: 0,
      payload_taken: 0,
      trailer: 0,
      restore_failed: 0,
    };
    Object.assign(this.#own, none);
  }

  protected leaving(from: V2State, to: V2State): void {
    if (from === V2.STOP_COPY) this.#finish(this.#made() < this.#stream.count ? 'EIO' : undefined);
    else if (from === V2.RESUMING) this.#finish(this.#restoreFailure());
    else if (this.#own.stopped === 1 && !(from === V2.RUNNING_P2P && to === V2.STOP)) {
      throw simError('EPERM', 'the VF is stopped');
    }
  }

  #restoreFailure(): ErrnoName | undefined {
    const { trailer, restore_failed, stopped } = this.#own;
    if (restore_failed === 1 || stopped === 1) return 'EIO';
    return trailer === 1 ? undefined : 'ETIMEDOUT';
  }

  #finish(errno: ErrnoName | undefined): void {
    if (errno === undefined) return;
    this.endSession();
    throw simError(errno, 'the device is not done, and its data fd is gone');
  }

  /** Data packets that the device has made. */
  #made(): number {
    if (this.#values.unready > 0) return this.#own.ready;
    const { number } = this.#stream.locate(this.my.position);
    return Math.min(this.#stream.count, Math.max(0, number - 1) + RING);
  }

  protected read(into: Uint8Array): number {
    const { my } = this;
    const stream = this.#stream;
    const length = Math.min(this.most, into.length, stream.length - my.position);
    this.#strikeRead(length);
    if (length === 0) return 0;
    this.#wait(stream.locate(my.position + length - 1).number);
    for (let done = 0; done < length;) done += this.#copy(my.position + done, into.subarray(done, length));
    my.position += length;
    return length;
  }

  #strikeRead(length: number): void {
    const own = this.#own;
    if (own.read_errno !== 0) throw simError(errnoNameOrEio(own.read_errno), 'an earlier read has failed');
    const { my } = this;
    const { number } = this.#stream.locate(my.position);
    try {
      this.strike('read');
    } catch (error) {
      if (hasErrno(error, 'EAGAIN') || hasErrno(error, 'EINTR')) throw error;
      own.read_errno = errnoOf(error);
      if (number <= this.#stream.count) my.position += Math.min(length, this.#leftIn(number));
      throw error;
    }
  }

  #leftIn(number: number): number {
    const { at } = this.#stream.locate(this.my.position);
    return packetHeader.size + this.#stream.packet(number).size - at;
  }

  /** As often as `unready` says for each packet that is not made yet, up to `number`. */
  #wait(number: number): void {
    const own = this.#own;
    const needed = Math.min(number, this.#stream.count);
    const { unready } = this.#values;
    if (unready === 0 || needed <= own.ready) return;
    own.waited += 1;
    if (own.waited === unready) {
      own.waited = 0;
      own.ready += 1;
    }
    throw simError('EAGAIN', 'the next packet is not made yet', 'ERR_NO_DATA_YET');
  }

  /** Copies what one packet has at a place of the stream. */
  #copy(position: number, into: Uint8Array): number {
    const { number, at } = this.#stream.locate(position);
    const { type, offset, size } = this.#stream.packet(number);
    let from: Uint8Array;
    if (at < packetHeader.size) {
      from = packetHeader
        .encode({ version: PACKET_VERSION, type, offset: BigInt(offset), size: BigInt(size) })
        .subarray(at);
    } else if (type === PacketType.DESCRIPTOR) {
      from = encodeDescriptor(this.#devid, this.#values.compat).subarray(at - packetHeader.size);
    } else {
      from = this.#memory.bar.subarray(offset + at - packetHeader.size, offset + size);
    }
    const piece = from.subarray(0, into.length);
    into.set(piece);
    return piece.length;
  }

  protected write(from: Uint8Array): number {
    this.strike('write');
    const piece = from.subarray(0, this.most);
    for (let done = 0; done < piece.length;) done += this.#restore.take(piece.subarray(done));
    this.my.position += piece.length;
    return piece.length;
  }

  protected precopyInfo(): never {
    throw simError('ENOTTY', 'no precopy info');
  }

  protected override precopyInfoOf(): never {
    return this.precopyInfo();
  }
}
