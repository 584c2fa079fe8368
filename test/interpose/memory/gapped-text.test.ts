import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GappedText } from '../../../src/interpose/memory/gapped-text.ts';
import { TextBytes } from '../../../src/interpose/memory/text-bytes.ts';

const PIECES = ['{"begin":', ',"us":', ',"é":', ''];

/** Numbers of every length, and neighbours of those that are one digit longer. */
const number = fc.oneof(
  fc.maxSafeNat(),
  fc.nat(9),
  fc
    .tuple(fc.integer({ min: 0, max: 15 }), fc.integer({ min: -2, max: 2 }))
    .map(([digits, off]) => Math.max(0, 10 ** digits + off)),
  fc.constantFrom(0, 2 ** 31, 2 ** 32, Number.MAX_SAFE_INTEGER),
);

function textOf(text: GappedText): string {
  const bytes = new TextBytes(8);
  text.addTo(bytes);
  return Buffer.from(bytes.bytes).toString();
}

describe('GappedText', () => {
  it('has zeros at first', () => {
    const text = new GappedText(PIECES.map((piece) => Buffer.from(piece)));
    expect(text.gaps).toBe(3);
    expect(textOf(text)).toBe('{"begin":0,"us":0,"é":0');
  });

  it('has the numbers that were put in last, whatever was there before', () => {
    const steps = fc.array(fc.tuple(fc.nat(2), number), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(steps, (given) => {
        const text = new GappedText(PIECES.map((piece) => Buffer.from(piece)));
        const numbers = [0, 0, 0];
        for (const [gap, value] of given) {
          numbers[gap] = value;
          text.set(gap, value);
          expect(textOf(text)).toBe(PIECES.map((piece, n) => `${piece}${numbers[n] ?? ''}`).join(''));
        }
      }),
    );
  });

  it('is its one piece if it has no gap', () => {
    expect(textOf(new GappedText([Buffer.from('}\n')]))).toBe('}\n');
  });
});
