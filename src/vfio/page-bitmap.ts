/*
 * Bitmaps of pages, as VFIO has them everywhere: bit n of little-endian u64s is the n-th page. That is bit n % 8 of byte n / 8, so
 * bytes will do.
 */

export function setPage(bits: Uint8Array, page: number): void {
  const at = page >>> 3;
  bits[at] = (bits[at] ?? 0) | (1 << (page & 7));
}

/** Calls `visit` with each page of a range that is set, in order; the last page of the range is not included. */
export function eachPage(bits: Uint8Array, from: number, to: number, visit: (page: number) => void): void {
  for (let at = from >>> 3; at * 8 < to; at += 1) {
    for (let byte = (bits[at] ?? 0) & maskOf(at, from, to); byte !== 0; byte &= byte - 1) {
      visit(at * 8 + 31 - Math.clz32(byte & -byte));
    }
  }
}

/** Moves the pages of a range that are set to another bitmap, where they are set before they are cleared here. */
export function movePages(bits: Uint8Array, to: Uint8Array, first: number, end: number): void {
  for (let at = first >>> 3; at * 8 < end; at += 1) {
    const mask = maskOf(at, first, end);
    const moved = (bits[at] ?? 0) & mask;
    if (moved === 0) continue;
    to[at] = (to[at] ?? 0) | moved;
    bits[at] = (bits[at] ?? 0) & ~mask;
  }
}

/** The bits of a byte that belong to a range of pages. */
function maskOf(at: number, from: number, to: number): number {
  const low = Math.max(0, from - at * 8);
  const high = Math.min(8, to - at * 8);
  return (0xff << low) & (0xff >> (8 - high));
}
