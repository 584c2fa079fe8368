import { beforeEach, describe, expect, it } from 'vitest';
import { VFIO_DEVICE_FEATURE_MIGRATION } from '../../../src/abi/vfio-v2.ts';
import { identify } from '../../../src/vfio/client/identify.ts';
import { BytePort, failed, sparseCap, typeCap, u64 } from '../../support/byte-port.ts';
import { join } from '../../support/bytes.ts';
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

  it('does not take the region of a draft for one of the two, whatever its size', () => {
    for (const size of [4096n, 20_480n, 2n ** 24n]) {
      fake.regions.set(9, { size, caps: typeCap(2 ** 30, 1) });
      expect(thrownBy(() => identify(fake))).toMatchObject({
        code: 'ERR_FEATURE_UNSUPPORTED',
        message: expect.stringMatching(
          'draft before v1, and which one of November 2018 and February 2019 cannot be told',
        ),
      });
    }
    expect(fake.asked).not.toContain('pread64');
  });

  it('maps the data section of a v1 device if it is told to', () => {
    fake = new BytePort(new Uint8Array(20_480));
    const type = typeCap(3, 1, 48);
    const sparse = sparseCap([{ offset: 4096n, size: 8192n }]);
    fake.regions.set(9, { size: 20_480n, flags: 7, offset: 0n, caps: join([type, sparse]) });
    const mapped = (...map: [boolean?]): number | undefined => {
      const found = identify(fake, ...map);
      return found.protocol === 'v1' ? found.device.mapped?.length : undefined;
    };
    expect([mapped(), mapped(false), mapped(true)]).toEqual([undefined, undefined, 8192]);
  });

  it('hands on what is not about the protocol', () => {
    fake.answer = () => {
      throw failed('EPERM');
    };
    expect(outcome(() => identify(fake))).toBe('EPERM');
  });
});
