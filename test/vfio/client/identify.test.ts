import { beforeEach, describe, expect, it } from 'vitest';
import { VFIO_DEVICE_FEATURE_MIGRATION } from '../../../src/abi/vfio-v2.ts';
import { identify } from '../../../src/vfio/client/identify.ts';
import { BytePort, failed, typeCap, u64 } from '../../support/byte-port.ts';
import { outcome, thrownBy } from '../../support/errno.ts';

let fake = new BytePort();
beforeEach(() => {
  fake = new BytePort();
});

describe('identify', () => {
  it('takes v2 where the driver has it, else v1, else says that there is none', () => {
    fake.regions.set(9, { size: 20_480n, caps: typeCap(3, 1) });
    expect(identify(fake).protocol).toBe('v1');
    fake.features.set(VFIO_DEVICE_FEATURE_MIGRATION, u64(5n));
    const both = identify(fake);
    expect(both).toMatchObject({ protocol: 'v2', device: { migrationFlags: 5 } });
    fake.features.clear();
    fake.regions.clear();
    expect(thrownBy(() => identify(fake))).toMatchObject({
      code: 'ERR_FEATURE_UNSUPPORTED',
      errno: 'ENOTTY',
    });
  });

  it('hands on what is not about the protocol', () => {
    fake.answer = () => {
      throw failed('EPERM');
    };
    expect(outcome(() => identify(fake))).toBe('EPERM');
  });
});
