import type { ErrnoName } from '../abi/errno.ts';
import { struct } from '../abi/struct.ts';
import type { SimMemory } from './memory.ts';
import { simError } from './sim-error.ts';
import { PRIVATE_OFFSET } from './v2-sim.ts';
import { checkDescriptor, PACKET_VERSION, packetHeader, PacketType } from './xe-packets.ts';

/** The registers of a simulated xe device. */
export const sim_xe = struct('sim_xe', 48, {
  /** A request that the FSM refuses has stopped the VF: nothing but a reset helps. */
  stopped: ['u32', 0],
  /** Data packets that the device has made, and reads that waited for the next one. */
  ready: ['u32', 4],
  waited: ['u32', 8],
  /** The errno with which every read of the session fails, once one has failed. */
  read_errno: ['u32', 12],
  /** Of the packet that is being written: bytes of its header, and of what follows. */
  header_taken: ['u32', 16],
  payload_taken: ['count', 24],
  /** What was written: the trailer, and data that the device cannot take. */
  trailer: ['u32', 32],
  restore_failed: ['u32', 36],
});
const HEADER_OFFSET = PRIVATE_OFFSET + sim_xe.size;

/** The resuming half of a simulated xe device: packets, collected and judged one by one. */
export class XeRestore {
  readonly #own: ReturnType<typeof sim_xe.view>;
  readonly #devid: number;
  readonly #revid: number;
  readonly #memory: SimMemory;
  readonly #header: Uint8Array;

  constructor(own: ReturnType<typeof sim_xe.view>, devid: number, revid: number, memory: SimMemory) {
    this.#own = own;
    this.#devid = devid;
    this.#revid = revid;
    this.#memory = memory;
    this.#header = memory.state.subarray(HEADER_OFFSET, HEADER_OFFSET + packetHeader.size);
  }

  /** Takes bytes of one packet, and returns how many. */
  take(bytes: Uint8Array): number {
    const own = this.#own;
    if (own.header_taken < packetHeader.size) {
      const part = bytes.subarray(0, packetHeader.size - own.header_taken);
      this.#header.set(part, own.header_taken);
      own.header_taken += part.length;
      if (own.header_taken === packetHeader.size) this.#begin();
      return part.length;
    }
    const size = Number(packetHeader.decode(this.#header).size);
    const part = bytes.subarray(0, size - own.payload_taken);
    this.#memory.kept.set(part, own.payload_taken);
    own.payload_taken += part.length;
    if (own.payload_taken === size) this.#end();
    return part.length;
  }

  #begin(): void {
    const { version, gt_id, size } = packetHeader.decode(this.#header);
    this.#own.payload_taken = 0;
    if (version !== PACKET_VERSION || gt_id !== 0) throw this.#refused('EINVAL', `version ${version}, GT ${gt_id}`);
    if (size > BigInt(this.#memory.kept.length)) throw this.#refused('ENOMEM', `a packet of ${size} bytes`);
    if (size === 0n) this.#end();
  }

  /** xe_sriov_pf_migration_restore_produce */
  #end(): void {
    const own = this.#own;
    const { type, tile_id, offset, size } = packetHeader.decode(this.#header);
    own.header_taken = 0;
    const data = this.#memory.kept.subarray(0, Number(size));
    if (tile_id !== 0 || type === 0) throw this.#refused('EINVAL', `type ${type}, tile ${tile_id}`);
    if (type === PacketType.DESCRIPTOR) {
      const errno = checkDescriptor(data, this.#devid, this.#revid);
      if (errno !== undefined) throw this.#refused(errno, 'the state is of another device');
    } else if (type === PacketType.TRAILER) {
      if (offset !== 0n || size !== 0n) throw this.#refused('EINVAL', 'a trailer with data');
      own.trailer = 1;
    } else if (type === PacketType.VRAM && offset + size <= BigInt(this.#memory.bar.length)) {
      this.#memory.bar.set(data, Number(offset));
    } else {
      own.restore_failed = 1; // the device finds out, after the write
    }
  }

  #refused(errno: ErrnoName, why: string): Error {
    this.#own.header_taken = 0;
    return simError(errno, why);
  }
}
