import { beforeEach, describe, expect, it } from 'vitest';
import {
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_SET,
} from '../../../src/abi/vfio-v2.ts';
import { askFeature, hasFeature } from '../../../src/vfio/client/features.ts';
import type { Pointed, VfioPort } from '../../../src/vfio/port.ts';
import { BytePort, failed } from '../../support/byte-port.ts';
import { outcome } from '../../support/errno.ts';

let fake = new BytePort();
beforeEach(() => {
  fake = new BytePort();
});

describe('askFeature', () => {
  it('counts the place of a pointer from the beginning of the request, whose header has 8 bytes', () => {
    const bytes = new Uint8Array(3);
    let given: Pointed | undefined;
    const port: VfioPort = Object.assign(fake, {
      feature: (_what: string, argument: Uint8Array, pointed?: Pointed) => {
        given = pointed;
        argument.fill(7, 8);
      },
    });
    expect(askFeature(port, 'START', 1, new Uint8Array(24), { at: 16, bytes })).toEqual(new Uint8Array(24).fill(7));
    expect(given).toEqual({ at: 24, bytes });
  });
});

describe('hasFeature', () => {
  it('asks and changes nothing', () => {
    let used = 0;
    fake.features.set(VFIO_DEVICE_FEATURE_DMA_LOGGING_START, { set: () => void (used += 1) });
    const has = (operation: number): boolean => hasFeature(fake, VFIO_DEVICE_FEATURE_DMA_LOGGING_START, operation);
    expect([has(VFIO_DEVICE_FEATURE_SET), has(VFIO_DEVICE_FEATURE_GET)]).toEqual([true, false]);
    fake.features.clear();
    expect([has(VFIO_DEVICE_FEATURE_SET), used]).toEqual([false, 0]);
  });

  it('does not take another failure for an answer', () => {
    fake.answer = () => {
      throw failed('EPERM');
    };
    expect(outcome(() => hasFeature(fake, 1, VFIO_DEVICE_FEATURE_GET))).toBe('EPERM');
  });
});
