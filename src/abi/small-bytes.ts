/** Bytes that are handed out in small pieces. */
const SLAB = 8192;
/** What is larger has memory of its own. */
const LARGEST = 512;
/** Any field of a struct is aligned. */
const ALIGNMENT = 8;

let slab = new ArrayBuffer(SLAB);
let used = 0;

/**
 * Memory for a struct or a short message, all 0. A `Uint8Array` whose address is taken, or of which a `DataView` is made, has to have an
 * `ArrayBuffer` outside of V8's heap: to make one costs eight times as much as to take a piece of one that is there. So its `buffer` has
 * others' bytes too, before `byteOffset` and behind.
 */
export function smallBytes(length: number): Uint8Array<ArrayBuffer> {
  if (length > LARGEST) return new Uint8Array(length);
  const room = Math.ceil(length / ALIGNMENT) * ALIGNMENT;
  if (used + room > SLAB) {
    slab = new ArrayBuffer(SLAB);
    used = 0;
  }
  const bytes = new Uint8Array(slab, used, length);
  used += room;
  return bytes;
}
