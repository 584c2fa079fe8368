/** Bytes of which any may be read: an open file, or memory. */
export interface ByteSource {
  /** How many bytes there are. */
  readonly size: number;
  /** Fills `into` with what lies from `position` on, as far as that goes, and returns how far. */
  read(into: Uint8Array, position: number): number;
}

/** Bytes in memory. */
export function memorySource(bytes: Uint8Array): ByteSource {
  return {
    size: bytes.length,
    read(into, position) {
      const piece = bytes.subarray(position, position + into.length);
      into.set(piece);
      return piece.length;
    },
  };
}
