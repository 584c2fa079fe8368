import { IMAGE_MAGIC, image_extent, image_header, PAGE } from './mlx5-format.ts';
import type { ByteStore } from './byte-store.ts';

/** A run of guest memory, in bytes. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
}

/** Of what device an image is. */
export interface ImageIdentity {
  readonly version: number;
  readonly compat: number;
  readonly size: number;
}

/** What an image of these extents has in bytes. */
export function imageSize(extents: readonly Extent[]): number {
  return extents.reduce((size, { length }) => size + image_extent.size + length, image_header.size);
}

/** An image, without a copy of the memory that it is of: that is read when the image is. */
export class Image {
  readonly extents: readonly Extent[];
  readonly size: number;
  readonly #head: Uint8Array;

  constructor({ version, compat, size }: ImageIdentity, extents: readonly Extent[]) {
    this.extents = extents;
    this.size = imageSize(extents);
    this.#head = new Uint8Array(image_header.size + extents.length * image_extent.size);
    image_header.encode(
      { magic: IMAGE_MAGIC, version, compat, extents: extents.length, size: BigInt(size) },
      this.#head,
    );
    for (const [n, { offset, length }] of extents.entries()) {
      const fields = { offset: BigInt(offset), length: BigInt(length) };
      image_extent.encode(fields, this.#head, image_header.size + n * image_extent.size);
    }
  }

  /** Reads from a position that is within the image, and tells of the memory that was read. */
  read(at: number, into: Uint8Array, memory: ByteStore, told?: (offset: number, bytes: Uint8Array) => void): void {
    const fromHead = this.#head.subarray(at, at + into.length);
    into.set(fromHead);
    let done = fromHead.length;
    let begin = this.#head.length; // of the extent in the image
    for (const { offset, length } of this.extents) {
      if (done === into.length) return;
      const skipped = at + done - begin;
      begin += length;
      if (skipped >= length) continue;
      const piece = into.subarray(done, done + length - skipped);
      memory.read(offset + skipped, piece);
      told?.(offset + skipped, piece);
      done += piece.length;
    }
  }
}

/** What is wrong with an image that was written whole, or its extents. They lie one behind the other from `begin` on. */
export function decodeImage(
  { version, compat, size }: ImageIdentity,
  store: ByteStore,
  at: number,
  length: number,
): { readonly extents: readonly Extent[]; readonly begin: number } | { readonly wrong: string } {
  if (length < image_header.size) return { wrong: `an image of ${length} bytes` };
  const head = new Uint8Array(image_header.size);
  store.read(at, head);
  const theirs = image_header.decode(head);
  if (theirs.magic !== IMAGE_MAGIC) return { wrong: 'it is no image' };
  if (theirs.version > version) return { wrong: `version ${theirs.version}, ${version} is the newest that is known` };
  if (theirs.compat !== compat) return { wrong: `it is of a device ${theirs.compat}, not ${compat}` };
  if (theirs.size !== BigInt(size)) return { wrong: `it is of a device with ${theirs.size} bytes of memory` };
  const begin = image_header.size + theirs.extents * image_extent.size;
  if (begin > length) return { wrong: `${theirs.extents} extents in ${length} bytes` };
  const table = new Uint8Array(begin - image_header.size);
  store.read(at + image_header.size, table);
  const extents: Extent[] = [];
  let left = length - begin;
  for (let n = 0; n < theirs.extents; n += 1) {
    const { offset, length: bytes } = image_extent.decode(table, n * image_extent.size);
    if (bytes > BigInt(left) || offset + bytes > BigInt(size)) return { wrong: `${bytes} bytes at ${offset}` };
    extents.push({ offset: Number(offset), length: Number(bytes) });
    left -= Number(bytes);
  }
  return left === 0 ? { extents, begin } : { wrong: `${left} bytes behind its extents` };
}

/** Pages as runs of memory; the last page may be cut off by the memory's end. */
export function runsOf(pages: Iterable<number>, size: number): Extent[] {
  const runs: { offset: number; length: number }[] = [];
  for (const page of pages) {
    const offset = page * PAGE;
    const length = Math.min(PAGE, size - offset);
    const last = runs.at(-1);
    if (last !== undefined && last.offset + last.length === offset) last.length += length;
    else runs.push({ offset, length });
  }
  return runs;
}

/** How much is compared at a time, in bytes. */
const WINDOW = 64 * PAGE;

/** The pages of the first `size` bytes that differ in two memories, from a page on. */
export function* differingPages(a: ByteStore, b: ByteStore, size: number, from = 0): Generator<number> {
  const ours = Buffer.alloc(WINDOW);
  const theirs = Buffer.alloc(WINDOW);
  for (let at = from * PAGE; at < size; at += WINDOW) {
    const length = Math.min(WINDOW, size - at);
    const [x, y] = [ours.subarray(0, length), theirs.subarray(0, length)];
    a.read(at, x);
    b.read(at, y);
    if (x.equals(y)) continue;
    for (let page = 0; page < length; page += PAGE) {
      if (!x.subarray(page, page + PAGE).equals(y.subarray(page, page + PAGE))) yield (at + page) / PAGE;
    }
  }
}
