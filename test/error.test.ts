import { constants } from 'node:os';
import { describe, expect, test } from 'vitest';
import { ERROR_CODES, hasErrno, isNotReady, ShimError } from '../src/error.ts';

describe('ERROR_CODES', () => {
  test('are sorted, unlike each other and of one form', () => {
    expect([...ERROR_CODES]).toEqual([...new Set(ERROR_CODES)].toSorted());
    for (const code of ERROR_CODES) expect(code).toMatch(/^ERR_[A-Z]+(_[A-Z]+)*$/);
  });
});

describe('ShimError', () => {
  test('carries code, errno, system call and cause', () => {
    const cause = new Error('below');
    const error = new ShimError('ERR_SYSCALL', 'open: failed', { errno: 'ENOENT', syscall: 'open', cause });
    expect(error).toBeInstanceOf(Error);
    expect(error).toMatchObject({ name: 'ShimError', code: 'ERR_SYSCALL', errno: 'ENOENT', syscall: 'open' });
    expect(error.message).toBe('open: failed');
    expect(error.cause).toBe(cause);
    expect(error.stack).toContain('error.test.ts');
  });

  test('has no cause of its own', () => {
    expect('cause' in new ShimError('ERR_ARGUMENT', 'no')).toBe(false);
  });

  test.each(['EINVAL', 'ENODEV', 'EAGAIN', 'ENOMSG'] as const)('knows the number of %s', (errno) => {
    expect(new ShimError('ERR_DEVICE', 'no', { errno }).errnoNumber).toBe(constants.errno[errno]);
  });

  test('is EIO to a VMM where the failure has no errno', () => {
    const error = new ShimError('ERR_ARGUMENT', 'no');
    expect([error.errno, error.errnoNumber]).toEqual([undefined, constants.errno.EIO]);
  });
});

describe('isNotReady', () => {
  test('is true for the code, not for the errno alone, nor for anything else', () => {
    expect(isNotReady(new ShimError('ERR_NO_DATA_YET', 'later', { errno: 'EAGAIN' }))).toBe(true);
    expect(isNotReady(new ShimError('ERR_SYSCALL', 'fork', { errno: 'EAGAIN' }))).toBe(false);
    expect(isNotReady(new ShimError('ERR_NO_DATA_NOW', 'none', { errno: 'ENOMSG' }))).toBe(false);
    expect(isNotReady({ code: 'ERR_NO_DATA_YET' })).toBe(false);
    expect(isNotReady(undefined)).toBe(false);
  });
});

describe('hasErrno', () => {
  test('compares the errno of a ShimError only', () => {
    const error = new ShimError('ERR_DEVICE', 'no', { errno: 'EIO' });
    expect([hasErrno(error, 'EIO'), hasErrno(error, 'EINVAL')]).toEqual([true, false]);
    expect(hasErrno({ errno: 'EIO' }, 'EIO')).toBe(false);
    expect(hasErrno(new ShimError('ERR_ARGUMENT', 'no'), 'EIO')).toBe(false);
  });
});
