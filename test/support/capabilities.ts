import { vfio_info_cap_header } from '../../src/abi/vfio.ts';

/** One link of a capability chain: where it is, and how many bytes it has until the next, or the end. */
interface Capability {
  readonly id: number;
  readonly at: number;
  readonly size: number;
}

/** Walks the capability chain of an info struct. Throws if it leaves the struct, is not aligned or goes back. */
export function capabilities(bytes: Uint8Array, first: number): Capability[] {
  const found: Capability[] = [];
  for (let at = first; at !== 0;) {
    const { id, next } = vfio_info_cap_header.decode(bytes, at);
    if (at % 8 !== 0 || (next !== 0 && next <= at)) throw new RangeError(`capability ${id} at ${at}, next at ${next}`);
    found.push({ id, at, size: (next === 0 ? bytes.length : next) - at });
    at = next;
  }
  return found;
}
