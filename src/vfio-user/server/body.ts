import type { Fields, Struct, Values } from '../../abi/struct.ts';
import { refuse } from '../../vfio/server/refuse.ts';

/** The struct that begins at a place of a message's body. Throws `EINVAL` if the body is too short for it. */
export function inBody<F extends Fields>(struct: Struct<F>, body: Uint8Array, at = 0): Values<F> {
  if (body.length - at < struct.size) throw refuse('EINVAL', `${struct.name}: ${body.length} bytes are too few`);
  return struct.decode(body, at);
}
