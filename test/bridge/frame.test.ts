import { describe, expect, test } from 'vitest';
import { FRAME_HEADER_SIZE, frameHeader, parseFrameHeader } from '../../src/bridge/frame.ts';
import { hex } from '../support/bytes.ts';
import { thrownBy } from '../support/errno.ts';

describe('frameHeader', () => {
  test('is 16 bytes: magic VSF1, version 1, length', () => {
    expect(FRAME_HEADER_SIZE).toBe(16);
    expect(frameHeader(0x0102_0304)).toEqual(hex('56534631 01000000 0403020100000000'));
  });

  test.each([1, 4096, 2 ** 32, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER])('gives a length of %i back', (length) => {
    expect(parseFrameHeader(frameHeader(length))).toBe(length);
  });
});

describe('parseFrameHeader', () => {
  test.each([
    ['another magic', '56534632 01000000 0400000000000000'],
    ['another version', '56534631 02000000 0400000000000000'],
    ['a length of 0', '56534631 01000000 0000000000000000'],
    ['a length of 2^53', '56534631 01000000 0000000000002000'],
    ['a length of 2^64 - 1', '56534631 01000000 ffffffffffffffff'],
  ])('refuses %s', (_, bytes) => {
    expect(thrownBy(() => parseFrameHeader(hex(bytes)))).toMatchObject({ code: 'ERR_STREAM_CORRUPT', errno: 'EINVAL' });
  });
});
