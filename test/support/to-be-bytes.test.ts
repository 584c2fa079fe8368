import { describe, expect, test } from 'vitest';
import { cut, join, noise } from './bytes.ts';

const bytes = noise(3000);
const of = (...ranges: readonly (readonly [number, number])[]): Uint8Array =>
  join(ranges.map(([from, to]) => bytes.subarray(from, to)));

/** What a comparison that has to fail says. */
function said(received: Uint8Array | Uint8Array[], expected: Uint8Array | Uint8Array[] = bytes): string[] {
  try {
    expect(received).toBeBytes(expected);
  } catch (error) {
    return (error as Error).message.split('\n');
  }
  throw new Error('the bytes were taken for equal');
}

function changed(at: number, ...values: number[]): Uint8Array {
  const other = bytes.slice();
  for (const [n, value] of values.entries()) other[at + n] = value;
  return other;
}

describe('toBeBuffers', () => {
  test('takes the same bytes in the same buffers', () => {
    expect(cut(bytes, [700, 1])).toBeBuffers(cut(bytes.slice(), [700, 1]));
    expect([]).toBeBuffers([]);
    expect(cut(bytes, [1000])).not.toBeBuffers(cut(changed(1500, 0, 0), [1000]));
    expect(() => expect([bytes]).not.toBeBuffers([bytes.slice()])).toThrow('are the same');
  });

  test('says how the sizes differ, or else the bytes', () => {
    expect(() => expect([bytes]).toBeBuffers(cut(bytes, [1000]))).toThrow(
      'buffers of [3000] bytes, not [1000, 1000, 1000]',
    );
    expect(() => expect([bytes]).toBeBuffers([])).toThrow('buffers of [3000] bytes, not []');
    expect(() => expect([bytes]).toBeBuffers([changed(1500, 0, 0)])).toThrow('the first difference is at byte 1500');
  });

  test('takes lists of buffers only', () => {
    // @ts-expect-error these are no list
    expect(() => expect(bytes).toBeBuffers([bytes])).toThrow(TypeError);
    // @ts-expect-error numbers are no buffers
    expect(() => expect([bytes]).toBeBuffers([1, 2])).toThrow(TypeError);
  });
});

describe('toBeBytes', () => {
  test('takes the same bytes, in whatever pieces', () => {
    expect(bytes).toBeBytes(bytes.slice());
    expect(cut(bytes, [700, 1])).toBeBytes(bytes);
    expect(bytes).toBeBytes(cut(bytes, [1024]));
    expect(Buffer.from(bytes)).toBeBytes(bytes);
    expect([]).toBeBytes(new Uint8Array(0));
    expect(bytes).not.toBeBytes(changed(5, 0, 0));
    expect(() => expect(bytes).not.toBeBytes(bytes.slice())).toThrow('are the same');
  });

  test('takes bytes only', () => {
    // @ts-expect-error a text has no bytes
    expect(() => expect('text').toBeBytes(bytes)).toThrow(TypeError);
    // @ts-expect-error neither has this
    expect(() => expect(bytes).toBeBytes([1, 2])).toThrow(TypeError);
  });

  test('shows lengths, the first difference, and 16 bytes around it', () => {
    expect(
      said(Uint8Array.of(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10), Uint8Array.of(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11)),
    ).toEqual([
      'received 11 bytes, expected 11; the first difference is at byte 10',
      '  received  2:  02  03  04  05  06  07  08  09 [0a] end',
      '  expected  2:  02  03  04  05  06  07  08  09 [0b] end',
      'only byte 10 differs',
    ]);
    const [, received, expected] = said(changed(1500, 0xfe, 0xed));
    expect(received).toMatch(/^ {2}received {2}1492:( {2}[\da-f]{2}){8} \[fe\] ed( {2}[\da-f]{2}){6}$/);
    expect(expected).toMatch(/^ {2}expected {2}1492:( {2}[\da-f]{2}){8} \[[\da-f]{2}\] [\da-f]{2}( {2}[\da-f]{2}){6}$/);
    expect(said(new Uint8Array(0), Uint8Array.of(1)).slice(0, 3)).toEqual([
      'received 0 bytes, expected 1; the first difference is at byte 0',
      '  received  0: [end]',
      '  expected  0: [01] end',
    ]);
  });

  test('says which of several pieces it is in', () => {
    expect(said(cut(changed(1500, 0, 0), [1000]))[0]).toContain('at byte 1500 (byte 500 of piece 2 of 3)');
    expect(said(cut(of([0, 2000]), [1000]))[0]).toContain('at byte 2000 (behind the last of 2 pieces)');
  });

  test.each([
    ['one byte twice', of([0, 769], [768, 3000]), 'bytes 769.. are those of 768..: one byte is doubled'],
    ['several bytes twice', of([0, 769], [700, 3000]), 'bytes 769.. are those of 700..: 69 bytes are doubled'],
    ['one byte twice, and cut off', of([0, 769], [768, 2999]), 'bytes 769.. are those of 768..: one byte is doubled'],
    [
      'its last bytes twice',
      of([0, 3000], [2990, 3000]),
      'bytes 3000.. are those of 2990..: the last 10 bytes are doubled',
    ],
    ['no byte 769', of([0, 769], [770, 3000]), 'bytes 769.. are those of 770..: a byte is missing'],
    ['no bytes 769 to 1023', of([0, 769], [1024, 3000]), 'bytes 769.. are those of 1024..: 255 bytes are missing'],
    [
      'no byte 769, and others at its end',
      join([of([0, 769], [770, 3000]), noise(1, 9)]),
      'bytes 769.. are those of 770..: a byte is missing',
    ],
    ['another part of it', of([0, 769], [200, 1000]), 'the rest is that of offset 200'],
    ['its beginning again', of([0, 1500], [0, 1500]), 'the rest is that of offset 0'],
    [
      'another part for a while',
      join([of([0, 769], [2000, 2200]), noise(2000, 5)]),
      'bytes 769 to 968 are those of 2000 to 2199, then others',
    ],
    [
      'one byte twice, and later one less',
      of([0, 769], [768, 1999], [2000, 3000]),
      'bytes 769 to 1999 are those of 768 to 1998, then others',
    ],
    ['not all of it', of([0, 2990]), 'ends early: the last 10 bytes are missing'],
    ['nothing', of(), 'ends early: the last 3000 bytes are missing'],
    ['all but one', of([0, 2999]), 'ends early: the last byte is missing'],
    ['more at its end', join([bytes, noise(7, 5)]), 'does not end: 7 bytes too many behind the last'],
    [
      'others in between',
      join([of([0, 769]), noise(4, 5), of([769, 3000])]),
      '4 bytes too many: bytes 773.. are those of 769..',
    ],
    [
      'two pieces in the wrong order',
      of([0, 500], [1500, 2500], [500, 1500], [2500, 3000]),
      'bytes 500 to 1499 come behind 1500 to 2499: two pieces are swapped',
    ],
    ['a hole', changed(1000, ...new Uint8Array(100)), 'bytes 1000 to 1099 are 00 throughout'],
    ['nothing behind 1000', changed(1000, ...new Uint8Array(2000).fill(0xee)), 'the rest is ee throughout'],
    ['another byte', changed(1000, (bytes[1000] ?? 0) ^ 1), 'only byte 1000 differs'],
    ['a few other bytes', changed(1000, 1, 2, 3, 4), 'only bytes 1000 to 1003 differ'],
  ])('tells of %s', (_, received, diagnosis) => {
    expect(said(received).at(-1)).toBe(diagnosis);
  });

  test('claims nothing that it cannot tell', () => {
    expect(said(join([of([0, 1000]), noise(2000, 5)]))).toHaveLength(3);
    expect(said(join([of([0, 1000]), noise(1500, 5)]))).toHaveLength(3);
  });
});
