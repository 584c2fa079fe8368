import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { smallBytes } from '../../src/abi/small-bytes.ts';

test('pieces of memory are as long as they are asked for, 0, aligned, and nobody else’s', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(600), { minLength: 1, maxLength: 200 }), (lengths) => {
      const pieces = lengths.map((length) => smallBytes(length));
      for (const [n, piece] of pieces.entries()) {
        expect(piece).toHaveLength(lengths[n] ?? -1);
        expect(piece.byteOffset % 8).toBe(0);
        expect(piece.every((byte) => byte === 0)).toBe(true);
        piece.fill(1 + (n % 255));
      }
      for (const [n, piece] of pieces.entries()) expect(piece.every((byte) => byte === 1 + (n % 255))).toBe(true);
    }),
  );
});
