import * as fc from 'fast-check';
import { describe, expect, expectTypeOf, test } from 'vitest';
import { fieldWidth, struct, type FieldKind } from '../../src/abi/struct.ts';

const sample = struct('sample', 40, {
  byte: ['u8', 0],
  half: ['u16', 2],
  word: ['u32', 4],
  signed: ['s32', 8],
  long: ['u64', 16],
  offset: ['s64', 24],
  length: ['count', 32],
});

const values = fc.record({
  byte: fc.nat(0xff),
  half: fc.nat(0xffff),
  word: fc.nat(0xffff_ffff),
  signed: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
  long: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  offset: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  length: fc.nat(Number.MAX_SAFE_INTEGER),
});

/** Bytes of 0xa5 around room for the struct, so that a write outside it shows. */
function surrounded(before: number, after: number): Uint8Array {
  return new Uint8Array(before + sample.size + after).fill(0xa5);
}

describe('fieldWidth', () => {
  test.each([
    ['u8', 1],
    ['u16', 2],
    ['u32', 4],
    ['s32', 4],
    ['u64', 8],
    ['s64', 8],
    ['count', 8],
  ] as const satisfies readonly (readonly [FieldKind, number])[])('of %s is %i', (kind, width) => {
    expect(fieldWidth(kind)).toBe(width);
  });
});

describe('struct', () => {
  test('keeps its declaration', () => {
    expect([sample.name, sample.size, sample.fields.long]).toEqual(['sample', 40, ['u64', 16]]);
  });

  test('refuses a field that ends beyond the size', () => {
    expect(() => struct('short', 7, { long: ['u64', 0] })).toThrow(new RangeError('short.long: ends at 8, beyond 7'));
    expect(() => struct('short', 8, { word: ['u32', 5] })).toThrow(RangeError);
    expect(struct('tight', 8, { long: ['u64', 0] }).size).toBe(8);
  });

  test('infers bigint for 64 bits and number for the rest', () => {
    expectTypeOf(sample.decode(new Uint8Array(40))).toEqualTypeOf<{
      byte: number;
      half: number;
      word: number;
      signed: number;
      long: bigint;
      offset: bigint;
      length: number;
    }>();
  });
});

describe('decode and encode', () => {
  test('are each other’s inverse, at any place, and touch nothing else', () => {
    fc.assert(
      fc.property(values, fc.nat(20), fc.nat(20), (fields, before, after) => {
        const bytes = surrounded(before, after);
        expect(sample.encode(fields, bytes, before)).toBe(bytes);
        expect(sample.decode(bytes, before)).toEqual(fields);
        expect([...bytes.subarray(0, before), ...bytes.subarray(before + 40)].every((byte) => byte === 0xa5)).toBe(
          true,
        );
      }),
    );
  });

  test('are little endian', () => {
    const bytes = sample.encode({ half: 0x0102, word: 0x0304_0506, signed: -2, long: 0x0102_0304_0506_0708n });
    const parts = ['00000201', '06050403', 'feffffff', '00000000', '0807060504030201', '00'.repeat(16)];
    expect(Buffer.from(bytes).toString('hex')).toBe(parts.join(''));
  });

  test('encode zeroes the fields it is not given, and the padding', () => {
    const bytes = surrounded(0, 0);
    sample.encode({ byte: 1 }, bytes);
    expect([...bytes]).toEqual([1, ...Array.from({ length: 39 }, () => 0)]);
  });

  test('encode makes a buffer of the struct’s size where none is given', () => {
    expect(sample.encode({})).toEqual(new Uint8Array(40));
  });

  test('respect the byte offset of a subarray', () => {
    const whole = new Uint8Array(64);
    sample.encode({ word: 7 }, whole.subarray(10), 2);
    expect(whole[16]).toBe(7);
    expect(sample.decode(whole.subarray(12)).word).toBe(7);
  });
});

describe('view', () => {
  test('reads and writes the memory itself', () => {
    fc.assert(
      fc.property(values, fc.nat(20), (fields, before) => {
        const bytes = surrounded(before, 3);
        const view = sample.view(bytes, before);
        Object.assign(view, fields);
        expect(sample.decode(bytes, before)).toEqual(fields);
        bytes[before] = 0x7f;
        expect(view.byte).toBe(0x7f);
      }),
    );
  });

  test('leaves the rest of the memory as it was', () => {
    const bytes = surrounded(4, 4);
    sample.view(bytes, 4).word = 0;
    expect([...bytes].flatMap((byte, i) => (byte === 0xa5 ? [] : [i]))).toEqual([8, 9, 10, 11]);
  });

  test('of one buffer does not disturb the view of another', () => {
    const views = [sample.view(new Uint8Array(40)), sample.view(new Uint8Array(40))] as const;
    views[0].word = 1;
    expect(views[1].word).toBe(0);
  });
});

describe('a struct that does not fit', () => {
  test.each([
    [39, 0],
    [0, 0],
    [40, 1],
    [80, 41],
    [80, -1],
  ])('in %i bytes at %i is a RangeError that says so', (length, at) => {
    const bytes = new Uint8Array(length);
    const error = new RangeError(`struct sample: needs 40 bytes at ${at}, the buffer has ${length}`);
    expect(() => sample.decode(bytes, at)).toThrow(error);
    expect(() => sample.encode({}, bytes, at)).toThrow(error);
    expect(() => sample.view(bytes, at)).toThrow(error);
  });

  test('is not written at all', () => {
    const bytes = new Uint8Array(39).fill(0xa5);
    expect(() => sample.encode({}, bytes)).toThrow(RangeError);
    expect(bytes.every((byte) => byte === 0xa5)).toBe(true);
  });

  test('is not looked for behind the end of a subarray', () => {
    expect(() => sample.decode(new Uint8Array(80).subarray(0, 39))).toThrow(RangeError);
  });
});

describe('count', () => {
  const one = struct('one', 8, { n: ['count', 0] });
  const other = struct('other', 8, { n: ['u64', 0] });

  test('is the same bytes as u64, for every safe integer', () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.nat(Number.MAX_SAFE_INTEGER), fc.constantFrom(0, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1)),
        (n) => {
          const bytes = one.encode({ n });
          expect(bytes).toEqual(other.encode({ n: BigInt(n) }));
          expect(one.decode(bytes).n).toBe(n);
          const view = one.view(new Uint8Array(8));
          view.n = n;
          expect(view.n).toBe(n);
        },
      ),
    );
  });
});
