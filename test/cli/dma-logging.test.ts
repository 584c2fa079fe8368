import { describe, expect, it } from 'vitest';
import {
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
} from '../../src/abi/vfio-v2.ts';
import { tryDmaLog } from '../../src/cli/dma-logging.ts';
import { BytePort, failed } from '../support/byte-port.ts';
import { LoggingDriver } from '../support/logging-driver.ts';

describe('tryDmaLog', () => {
  it('leaves a log that works as it was: ended', () => {
    const driver = new LoggingDriver();
    expect(tryDmaLog(driver.port)).toBe('works');
    expect(driver.ranges).toBeUndefined();
  });

  it('says no of a driver without a log', () => {
    expect(tryDmaLog(new BytePort())).toBe('no');
  });

  it.each([
    ['START', VFIO_DEVICE_FEATURE_DMA_LOGGING_START],
    ['REPORT', VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT],
    ['STOP', VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP],
  ])('says which request is refused, and why: %s', (request, feature) => {
    const driver = new LoggingDriver();
    const refuse = (): never => {
      throw failed('EOPNOTSUPP');
    };
    driver.port.features.set(feature, request === 'REPORT' ? { get: refuse } : { set: refuse });
    expect(tryDmaLog(driver.port)).toBe(`offered, ${request} refused (EOPNOTSUPP)`);
    if (request === 'REPORT') expect(driver.ranges).toBeUndefined();
  });
});
