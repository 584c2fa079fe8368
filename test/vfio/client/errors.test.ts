import { describe, expect, it } from 'vitest';
import { POLLIN } from '../../../src/abi/fcntl.ts';
import { ShimError } from '../../../src/error.ts';
import { dataError, deviceError } from '../../../src/vfio/client/errors.ts';
import { failed } from '../../support/byte-port.ts';

describe('dataError', () => {
  const readiness = { fd: 5, events: POLLIN };

  it.each([
    ['EAGAIN', 'ERR_NO_DATA_YET'],
    ['ENOMSG', 'ERR_NO_DATA_NOW'],
    ['ENODEV', 'ERR_SESSION_ENDED'],
    ['EIO', 'ERR_DEVICE'],
  ] as const)('of %s has the code %s', (errno, code) => {
    expect(dataError('read', errno)).toMatchObject({ code, errno, syscall: 'read', readiness: undefined });
  });

  it('says by what a driver tells that it is ready, if it is not ready', () => {
    expect(dataError('read', 'EAGAIN', readiness).readiness).toEqual(readiness);
    expect(dataError('read', 'EIO', readiness).readiness).toBeUndefined();
  });
});

describe('deviceError', () => {
  it.each([
    ['EAGAIN', 'ERR_NO_DATA_YET'],
    ['EBUSY', 'ERR_DEVICE'],
  ] as const)('of %s is %s, with its cause', (errno, code) => {
    const cause = failed(errno);
    expect(deviceError('RESET', cause)).toMatchObject({ code, errno, syscall: 'ioctl', cause });
  });

  it('is what was thrown, if no driver has answered', () => {
    for (const error of [new Error('a bug'), new ShimError('ERR_DEVICE', 'without an errno')]) {
      expect(deviceError('RESET', error)).toBe(error);
    }
  });
});
