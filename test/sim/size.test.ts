import { describe, expect, test } from 'vitest';
import { formatSize, parseSize } from '../../src/sim/size.ts';

describe('parseSize', () => {
  const wrong = new Error('not a size');
  test.each([
    ['0', 0],
    ['1', 1],
    ['64K', 65_536],
    ['64k', 65_536],
    ['3M', 3 * 2 ** 20],
    ['2g', 2 ** 31],
    ['5T', 5 * 2 ** 40],
    ['8191T', 8191 * 2 ** 40],
    ['9007199254740991', Number.MAX_SAFE_INTEGER],
    ['007', 7],
  ])('of %s is %i', (text, size) => {
    expect(parseSize(text, () => wrong)).toBe(size);
  });

  test.each([
    '',
    'K',
    '1KB',
    '1 K',
    '-1',
    '+1',
    '1.0',
    '0x1',
    '1_000',
    '8192T',
    '999999999999999T',
    '9007199254740992',
    '9'.repeat(400),
    'NaN',
    '١',
  ])('of %j is the error of the caller', (text) => {
    expect(() => parseSize(text, () => wrong)).toThrow(wrong);
  });
});

describe('formatSize', () => {
  test.each([
    [0, '0'],
    [8, '8'],
    [1000, '1000'],
    [65_536, '64K'],
    [2 ** 20 + 1024, '1025K'],
    [2 ** 40, '1T'],
    [2 ** 50, '1024T'],
  ])('of %i is %s, and parseSize makes it of that', (size, text) => {
    expect(formatSize(size)).toBe(text);
    expect(parseSize(text, () => new Error(text))).toBe(size);
  });
});
