import { smallBytes } from '../../abi/small-bytes.ts';
import { MAX_BODY } from '../wire/connection.ts';
import type { Fields, Struct, Values } from '../../abi/struct.ts';
import { refuse } from '../../vfio/server/refuse.ts';

/** The struct that begins at a place of a message's body. Throws `EINVAL` if the body is too short for it. */
export function inBody<F extends Fields>(struct: Struct<F>, body: Uint8Array, at = 0): Values<F> {
  if (body.length - at < struct.size) throw refuse('EINVAL', `${struct.name}: ${body.length} bytes are too few`);
  return struct.decode(body, at);
}

/** Less is made anew. */
const WORTH_KEEPING = 16 * 1024;
let kept: Uint8Array | undefined;

/** Memory for the body of a reply, which is sent before the next is made: whatever it has in it is the last one's. */
export function replyBody(length: number): Uint8Array {
  if (length < WORTH_KEEPING || length > MAX_BODY) return smallBytes(length);
  kept ??= new Uint8Array(MAX_BODY);
  return kept.subarray(0, length);
}
