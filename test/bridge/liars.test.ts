import { describe, expect, test } from 'vitest';
import { presentV1, presentV2 } from '../../src/bridge/index.ts';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import type { V1Device } from '../../src/v1/device.ts';
import { V1 } from '../../src/v1/states.ts';
import type { V2State } from '../../src/v2/states.ts';
import { failure, outcome, thrownBy } from '../support/errno.ts';
import { oldVmm } from '../support/presented.ts';
import { TapeV1 } from '../support/tape-v1.ts';
import { V2 } from '../../src/v2/states.ts';

/* Devices of somebody's own that say what no device can say. The user gets an error, never another number. */

describe('presentV1 of a v2 device', () => {
  test.each([8, 255, -1, 1.5, Number.NaN, undefined])('in state %s: EIO, whatever is asked', (state) => {
    const { user, tape, device } = oldVmm();
    tape.getState = () => state as V2State;
    expect(thrownBy(() => user.state())).toMatchObject({ code: 'ERR_STATE_UNKNOWN', errno: 'EIO' });
    for (const access of [
      () => user.setState(V1.STOP_COPY),
      () => user.pending(),
      () => user.offset(),
      () => user.size(),
    ]) {
      expect(outcome(access)).toBe('EIO');
    }
    expect(outcome(() => device.reset())).toBe('EIO');
  });

  test.each([-1, 1.5, Number.NaN, 2 ** 60])('with %d bytes left in pre-copy: EIO', (bytes) => {
    for (const info of [
      { initialBytes: bytes, dirtyBytes: 0 },
      { initialBytes: 0, dirtyBytes: bytes },
    ]) {
      const { user } = oldVmm({ precopyInfo: info });
      user.setState(V1.PRE_COPY);
      expect(outcome(() => user.pending())).toBe('EIO');
    }
  });

  test.each([-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY])('with a MIG_DATA_SIZE of %d: as without one', (length) => {
    const { user } = oldVmm({ stopCopyLength: length, stopAnswers: [new Uint8Array(10)] });
    user.setState(V1.STOP_COPY);
    expect(user.pending()).toBe(10);
  });

  test('without a session where one has to be: an error of its own', () => {
    const { user, tape } = oldVmm();
    tape.setState = (target) => {
      tape.state = target;
      return undefined;
    };
    user.setState(V1.PRE_COPY);
    expect(outcome(() => user.pending())).toBe('ENODEV');
  });

  test('interrupted for ever: ends', () => {
    const { user, spy } = oldVmm({ stopAnswers: [new Uint8Array(10)] });
    user.setState(V1.STOP_COPY);
    spy.options = {
      before: (call) => {
        if (call === 'read') throw failure('EINTR', 'ERR_SYSCALL');
      },
    };
    expect(outcome(() => user.pending())).toBe('EINTR');
    spy.options = {};
    expect(user.pending()).toBe(10);
  });

  test.each([0, -1, 1.5, Number.NaN])('is refused a bufferSize of %d', (bufferSize) => {
    expect(() => presentV1(oldVmm().tape, { bufferSize })).toThrow('bufferSize');
  });
});

describe('presentV2 of a v1 device', () => {
  const { device } = new TapeV1();
  const driverWith = (changes: Partial<V1Device>): V1Device => ({
    regionSize: device.regionSize,
    dataSection: device.dataSection,
    mapped: device.mapped,
    read: (offset, into) => device.read(offset, into),
    write: (offset, from) => device.write(offset, from),
    reset: () => device.reset(),
    ...changes,
  });

  test.each<[string, Partial<V1Device>]>([
    ['no size', { regionSize: Number.NaN }],
    ['a negative size', { regionSize: -1 }],
    ['a data section beyond its end', { dataSection: { offset: DATA_OFFSET, size: 65_537 } }],
    ['a data section at no offset', { dataSection: { offset: 1.5, size: 10 } }],
    ['a data section of a negative size', { dataSection: { offset: DATA_OFFSET, size: -1 } }],
    ['more mapped than there is', { mapped: new Uint8Array(65_537) }],
  ])('whose region has %s is refused', (_, changes) => {
    expect(thrownBy(() => presentV2(driverWith(changes)))).toMatchObject({ code: 'ERR_DEVICE', errno: 'EIO' });
    expect(presentV2(driverWith({})).getState()).toBe(V2.RUNNING);
  });

  test('says what is wrong with a region of which nothing is mapped', () => {
    const driver = driverWith({ mapped: undefined, dataSection: { offset: DATA_OFFSET, size: 65_537 } });
    expect(thrownBy(() => presentV2(driver)).message).toBe(
      `v1 driver: a data section of 65537 bytes at ${DATA_OFFSET}, of which 0 are mapped, in a region of ${DATA_OFFSET + 65_536}`,
    );
    expect(presentV2(driverWith({ mapped: undefined })).getState()).toBe(V2.RUNNING);
  });

  test.each([-1, 1.5, Number.NaN])('is refused an estimate of %d', (stopCopyEstimate) => {
    expect(() => presentV2(device, { stopCopyEstimate })).toThrow('stopCopyEstimate');
  });
});
