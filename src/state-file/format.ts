import { createHash } from 'node:crypto';
import { struct } from '../abi/struct.ts';
import type { Protocol } from '../device/migratable.ts';
import { ShimError } from '../error.ts';
import { decodeIdentity, encodeIdentity, type Identity } from './identity.ts';

/*
 * A state file: one header of 4096 bytes, then the buffers of the migration data, each behind its length. docs/state-file.md
 * describes it for readers of the file.
 */

/** "VFIOSHIM" */
export const MAGIC = 0x4d49_4853_4f49_4656n;
export const FORMAT_VERSION = 1;
export const HEADER_SIZE = 4096;
/** What stands before each buffer: its length, a u64. */
export const LENGTH_SIZE = 8;

export const state_file_header = struct('state_file_header', 128, {
  magic: ['u64', 0],
  format_version: ['u32', 8],
  /** Migration protocol of the device that was saved: 1 or 2, or the year of a draft. */
  protocol: ['u32', 12],
  /** Bytes of migration data, the lengths not counted. */
  data_bytes: ['u64', 16],
  buffers: ['u64', 24],
  identity_length: ['u32', 32],
  reserved: ['u32', 36],
});
const BODY_HASH_AT = 40;
const HEADER_HASH_AT = 72;
const HASH_SIZE = 32;

/** How a header names what a device speaks. */
const PROTOCOLS = { v1: 1, v2: 2, 'draft-2018': 2018, 'draft-2019': 2019 } as const satisfies Record<Protocol, number>;

function protocolOf(number: number): Protocol | undefined {
  return (Object.keys(PROTOCOLS) as Protocol[]).find((protocol) => PROTOCOLS[protocol] === number);
}

/** What the header of a state file says. */
export interface StateHeader {
  readonly protocol: Protocol;
  readonly identity: Identity;
  /** Bytes of migration data. */
  readonly bytes: number;
  readonly buffers: number;
  /** Hexadecimal, of everything behind the header: lengths and data. */
  readonly sha256: string;
}

/** The size that a whole file has. */
export function fileSize({ bytes, buffers }: Pick<StateHeader, 'bytes' | 'buffers'>): number {
  return HEADER_SIZE + bytes + buffers * LENGTH_SIZE;
}

export function encodeHeader(header: StateHeader): Uint8Array {
  const { protocol, bytes, buffers, sha256 } = header;
  const identity = encodeIdentity(header.identity);
  const room = HEADER_SIZE - state_file_header.size;
  if (identity.length > room || !Number.isSafeInteger(fileSize(header)) || Math.min(bytes, buffers) < 0) {
    throw new ShimError(
      'ERR_ARGUMENT',
      `state file: ${bytes} bytes in ${buffers} buffers, identity ${identity.length}`,
    );
  }
  const page = new Uint8Array(HEADER_SIZE);
  state_file_header.encode(
    {
      magic: MAGIC,
      format_version: FORMAT_VERSION,
      protocol: PROTOCOLS[protocol],
      data_bytes: BigInt(bytes),
      buffers: BigInt(buffers),
      identity_length: identity.length,
    },
    page,
  );
  page.set(Buffer.from(sha256, 'hex').subarray(0, HASH_SIZE), BODY_HASH_AT);
  page.set(identity, state_file_header.size);
  page.set(headerHash(page), HEADER_HASH_AT);
  return page;
}

/**
 * The header of a file that is `size` bytes long; `page` is what it begins with, `HEADER_SIZE` bytes or all of it. Whoever
 * made the file may mean harm: nothing in it is used before it is checked.
 */
export function decodeHeader(page: Uint8Array, size: number): StateHeader {
  if (page.length < 8 || new DataView(page.buffer, page.byteOffset).getBigUint64(0, true) !== MAGIC) {
    throw corrupt('is not a state file of vfio-shim');
  }
  if (page.length < HEADER_SIZE) throw truncated(size, HEADER_SIZE);
  const { format_version, protocol, data_bytes, buffers, identity_length } = state_file_header.decode(page);
  if (format_version > FORMAT_VERSION) {
    throw new ShimError(
      'ERR_FILE_VERSION',
      `is of format version ${format_version}; this vfio-shim reads ${FORMAT_VERSION}`,
      { errno: 'EINVAL' },
    );
  }
  const stored = page.subarray(HEADER_HASH_AT, HEADER_HASH_AT + HASH_SIZE);
  if (format_version === 0 || Buffer.compare(headerHash(page), stored) !== 0) throw corrupt('is damaged: header');
  const room = HEADER_SIZE - state_file_header.size;
  const whole = BigInt(HEADER_SIZE) + data_bytes + buffers * BigInt(LENGTH_SIZE);
  const spoken = protocolOf(protocol);
  if (spoken === undefined || identity_length > room || whole > Number.MAX_SAFE_INTEGER) {
    throw corrupt(`is damaged: protocol ${protocol}, ${data_bytes} bytes, ${buffers} buffers`);
  }
  if (size < Number(whole)) throw truncated(size, Number(whole));
  if (size > Number(whole)) throw corrupt(`is damaged: it has ${size} bytes and should have ${whole}`);
  return {
    protocol: spoken,
    identity: decodeIdentity(page.subarray(state_file_header.size, state_file_header.size + identity_length)),
    bytes: Number(data_bytes),
    buffers: Number(buffers),
    sha256: Buffer.from(page.subarray(BODY_HASH_AT, BODY_HASH_AT + HASH_SIZE)).toString('hex'),
  };
}

/** SHA-256 of the header's page, its own place taken as zeros. */
function headerHash(page: Uint8Array): Uint8Array {
  const copy = page.slice();
  copy.fill(0, HEADER_HASH_AT, HEADER_HASH_AT + HASH_SIZE);
  return createHash('sha256').update(copy).digest();
}

export function corrupt(why: string): ShimError {
  return new ShimError('ERR_FILE_CORRUPT', why, { errno: 'EINVAL' });
}

export function truncated(size: number, whole: number): ShimError {
  return new ShimError('ERR_FILE_TRUNCATED', `is cut short: it has ${size} bytes of ${whole}`, { errno: 'EINVAL' });
}
