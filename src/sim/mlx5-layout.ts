import { image_extent, image_header, LARGEST_RECORD, PAGE } from './mlx5-format.ts';

/** What is kept besides the registers, and where. */
export interface Mlx5Layout {
  /** Bytes from the memory's beginning that pre-copy sends, and which are kept as they were sent, from 0 on. */
  readonly initial: number;
  /** Two maps of pages, a bit each: those of an image of pre-copy. */
  readonly mapSize: number;
  readonly mapsAt: number;
  /** The image that is being written. */
  readonly incomingAt: number;
  readonly incomingSize: number;
  readonly size: number;
}

export function layoutOf({ size, initial }: { readonly size: number; readonly initial: number }): Mlx5Layout {
  const sent = Math.min(size, initial);
  const mapSize = Math.ceil(sent / PAGE / 8);
  const mapsAt = Math.ceil(sent / PAGE) * PAGE;
  const incomingAt = mapsAt + Math.ceil((2 * mapSize) / PAGE) * PAGE;
  // the largest image that a device of this size can need: every second page by itself
  const extents = 1 + Math.ceil(size / PAGE / 2);
  const incomingSize = Math.min(LARGEST_RECORD, image_header.size + extents * image_extent.size + size);
  return { initial: sent, mapSize, mapsAt, incomingAt, incomingSize, size: incomingAt + incomingSize };
}
