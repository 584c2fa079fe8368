import { struct } from '../abi/struct.ts';
import { ShimError } from '../error.ts';

/** `--segmentation framed`: each v1 buffer travels behind this header, so that the other end can restore it as one. */
const frame = struct('frame', 16, { magic: ['u32', 0], version: ['u32', 4], length: ['u64', 8] });
const MAGIC = 0x31465356; // "VSF1"
const VERSION = 1;

export const FRAME_HEADER_SIZE: number = frame.size;

export function frameHeader(length: number): Uint8Array {
  return frame.encode({ magic: MAGIC, version: VERSION, length: BigInt(length) });
}

/** The length of the frame behind a header. Throws `EINVAL` for bytes that are none. */
export function parseFrameHeader(bytes: Uint8Array): number {
  const { magic, version, length } = frame.decode(bytes);
  if (magic !== MAGIC || version !== VERSION) {
    throw corrupt(`magic 0x${magic.toString(16)}, version ${version}: the source does not send frames`);
  }
  if (length === 0n || length > Number.MAX_SAFE_INTEGER) throw corrupt(`a length of ${length}`);
  return Number(length);
}

function corrupt(what: string): ShimError {
  return new ShimError('ERR_STREAM_CORRUPT', `frame header: ${what}`, { errno: 'EINVAL' });
}
