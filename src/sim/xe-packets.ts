import { struct } from '../abi/struct.ts';

/** What begins a packet (drivers/gpu/drm/xe/xe_sriov_packet_types.h: struct xe_sriov_packet_hdr, Linux 7.1). */
export const packetHeader = struct('xe_sriov_packet_hdr', 24, {
  version: ['u8', 0],
  type: ['u8', 1],
  tile_id: ['u8', 2],
  gt_id: ['u8', 3],
  flags: ['u32', 4],
  offset: ['u64', 8],
  size: ['u64', 16],
});
export const PACKET_VERSION = 1;
export const PacketType = { DESCRIPTOR: 1, TRAILER: 2, VRAM: 6 } as const;

/** The most memory that a data packet of this device carries. The driver's are of 512 MiB. */
export const PACKET_DATA = 16 * 1024;

/** What the descriptor says of the device: keys and values (xe_sriov_packet.c: pf_descriptor_init, Linux 7.1). */
const descriptor = struct('xe_descriptor', 16, {
  devid_len: ['u16', 0],
  devid_key: ['u16', 2],
  devid: ['u32', 4],
  revid_len: ['u16', 8],
  revid_key: ['u16', 10],
  revid: ['u32', 12],
});
const DEVID_KEY = 0xf001;
const REVID_KEY = 0xf002;

export function encodeDescriptor(devid: number, revid: number): Uint8Array {
  return descriptor.encode({ devid_len: 1, devid_key: DEVID_KEY, devid, revid_len: 1, revid_key: REVID_KEY, revid });
}

/** What a destination says to a descriptor (xe_sriov_packet_process_descriptor). Keys that it does not know are passed over. */
export function checkDescriptor(bytes: Uint8Array, devid: number, revid: number): 'EINVAL' | 'ENODEV' | undefined {
  if (bytes.length % 4 !== 0) return 'EINVAL';
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at < bytes.length;) {
    const length = 4 * view.getUint16(at, true);
    const key = view.getUint16(at + 2, true);
    at += 4;
    if (length > bytes.length - at) return 'EINVAL';
    const expected = key === DEVID_KEY ? devid : key === REVID_KEY ? revid : undefined;
    if (expected !== undefined && (length === 0 || view.getUint32(at, true) !== expected)) return 'ENODEV';
    at += length;
  }
  return undefined;
}

export interface Packet {
  readonly type: number;
  /** Where its data lies in the device's memory. */
  readonly offset: number;
  /** Bytes behind its header. */
  readonly size: number;
}

/** The packets of a device with this much memory, by number: descriptor, data, trailer. */
export class PacketStream {
  readonly #memory: number;
  /** Data packets. */
  readonly count: number;

  constructor(memory: number) {
    this.#memory = memory;
    this.count = Math.ceil(memory / PACKET_DATA);
  }

  get length(): number {
    return (this.count + 2) * packetHeader.size + encodeDescriptor(0, 0).length + this.#memory;
  }

  packet(number: number): Packet {
    if (number === 0) return { type: PacketType.DESCRIPTOR, offset: 0, size: encodeDescriptor(0, 0).length };
    if (number > this.count) return { type: PacketType.TRAILER, offset: 0, size: 0 };
    const offset = (number - 1) * PACKET_DATA;
    return { type: PacketType.VRAM, offset, size: Math.min(PACKET_DATA, this.#memory - offset) };
  }

  /** The packet that a byte of the stream is in, and where in it. */
  locate(position: number): { readonly number: number; readonly at: number } {
    const first = packetHeader.size + this.packet(0).size;
    if (position < first) return { number: 0, at: position };
    const whole = packetHeader.size + PACKET_DATA;
    const number = 1 + Math.floor((position - first) / whole);
    const trailer = this.length - packetHeader.size;
    if (position >= trailer) return { number: this.count + 1, at: position - trailer };
    return { number, at: (position - first) % whole };
  }
}
