import { constants } from 'node:os';
import { describe, expect, test } from 'vitest';
import { errnoName, errnoNumber, type ErrnoName } from '../../src/abi/errno.ts';

describe('errnoNumber', () => {
  test.each([
    ['EPERM', 1],
    ['EINTR', 4],
    ['EIO', 5],
    ['ENXIO', 6],
    ['EAGAIN', 11],
    ['ENOMEM', 12],
    ['EFAULT', 14],
    ['EBUSY', 16],
    ['ENODEV', 19],
    ['EINVAL', 22],
    ['ENOTTY', 25],
    ['ENOSPC', 28],
    ['ENOSYS', 38],
    ['ENOMSG', 42],
    ['EOPNOTSUPP', 95],
    ['ETIMEDOUT', 110],
    ['EREMOTEIO', 121],
    ['ENOTSUPP', 524],
  ] as const)('of %s is %i', (name, number) => {
    expect(errnoNumber(name)).toBe(number);
    expect(errnoName(number)).toBe(name);
  });

  test('agrees with Node on every name Node has', () => {
    const ours = Object.keys(constants.errno).map((name) => [name, errnoNumber(name as ErrnoName)]);
    expect(Object.fromEntries(ours)).toEqual({ ...constants.errno });
  });
});

describe('errnoName', () => {
  test('names every number from 1 to 133 but the two that the kernel skips', () => {
    const nameless = Array.from({ length: 133 }, (_, i) => i + 1).filter((number) => errnoName(number) === undefined);
    expect(nameless).toEqual([41, 58]);
  });

  test('has the number it was asked for', () => {
    const numbers = Object.values(constants.errno);
    expect(numbers.map((number) => errnoNumber(errnoName(number) ?? 'EIO'))).toEqual(numbers);
  });

  test.each([
    ['ENOTSUP', 'EOPNOTSUPP'],
    ['EWOULDBLOCK', 'EAGAIN'],
  ] as const)('prefers the kernel name to %s', (alias, name) => {
    expect(errnoName(errnoNumber(alias))).toBe(name);
  });

  test.each([0, -22, 41, 134, 4095, 0.5, Number.NaN])('of %d is undefined', (number) => {
    expect(errnoName(number)).toBeUndefined();
  });
});
