import { beforeEach, describe, expect, it } from 'vitest';
import { dmaLogOf } from '../../../src/vfio/client/port-dma-log.ts';
import { cleanBitmap, type DmaLog, type IovaRange } from '../../../src/vfio/dma-log.ts';
import { LoggingDriver } from '../../support/logging-driver.ts';
import { outcome, thrownBy } from '../../support/errno.ts';

const PAGE = 4096n;
const MiB = 1024n * 1024n;

describe('a log of DMA, over a port', () => {
  let driver: LoggingDriver;
  let log: DmaLog;
  beforeEach(() => {
    driver = new LoggingDriver();
    const found = dmaLogOf(driver.port);
    if (found === undefined) throw new Error('no log');
    log = found;
  });

  /** The pages of a bitmap that are set. */
  function dirty(range: IovaRange, pageSize = PAGE, bitmap = cleanBitmap(range, pageSize)): number[] {
    log.readAndClear(range, bitmap);
    const bits = [...bitmap.bits].flatMap((byte) => Array.from({ length: 8 }, (_, n) => (byte >> n) & 1));
    return [...bits.entries()].filter(([, set]) => set === 1).map(([page]) => page);
  }

  it('is there where all three features are, and asking changes nothing', () => {
    expect(driver.ranges).toBeUndefined();
    for (const feature of driver.port.features.keys()) {
      const lacking = new LoggingDriver();
      lacking.port.features.delete(feature);
      expect(dmaLogOf(lacking.port)).toBeUndefined();
    }
  });

  it('begins with all ranges, in pages of the size that the device has', () => {
    const ranges = [
      { iova: 0n, length: 2n * MiB },
      { iova: 2n ** 32n, length: 8n * MiB },
    ];
    expect(log.start(ranges, 2048n)).toBe(PAGE);
    expect(driver.ranges).toEqual(ranges);
    expect(thrownBy(() => log.start(ranges, PAGE))).toMatchObject({
      code: 'ERR_DEVICE',
      errno: 'EBUSY',
      message: 'DMA_LOGGING_START: the driver answers EBUSY',
    });
    log.stop();
    expect(driver.ranges).toBeUndefined();
    expect(log.start(ranges, MiB)).toBe(MiB);
  });

  it('hands on what the driver refuses', () => {
    expect(outcome(() => log.start([], PAGE))).toBe('EINVAL');
    expect(outcome(() => log.start([{ iova: 1n, length: PAGE }], PAGE))).toBe('EINVAL');
    expect(outcome(() => dirty({ iova: 0n, length: PAGE }))).toBe('EINVAL');
  });

  it('shows what was written, once, and what lies in the range', () => {
    const all = { iova: 4n * MiB, length: 4n * MiB };
    log.start([all], PAGE);
    const last = all.iova + all.length - 1n;
    driver.writes(all.iova, all.iova + 70n * PAGE + 5n, last);
    expect(dirty({ iova: all.iova, length: MiB })).toEqual([0, 70]);
    expect(dirty(all)).toEqual([1023]);
    expect(dirty(all)).toEqual([]);
  });

  it('reports in the pages of the bitmap, and clears none of its bits', () => {
    const all = { iova: 0n, length: 256n * MiB };
    log.start([all], PAGE);
    driver.writes(3n * MiB + 5n, 3n * MiB + PAGE, 255n * MiB);
    const bitmap = cleanBitmap(all, MiB);
    bitmap.bits[0] = 1;
    expect(dirty(all, MiB, bitmap)).toEqual([0, 3, 255]);
  });

  it.each([
    ['too small', { length: 65n * PAGE }, PAGE, 8],
    ['of no range', { length: 0n }, PAGE, 8],
    ['in pages that are none', { length: PAGE }, 3n * PAGE, 8],
    ['in pages of no bytes', { length: PAGE }, 0n, 8],
  ] as const)('never has a driver write to a bitmap %s', (_, { length }, pageSize, bytes) => {
    log.start([{ iova: 0n, length: MiB }], PAGE);
    const asked = driver.port.asked.length;
    const bitmap = { pageSize, bits: new Uint8Array(bytes) };
    expect(thrownBy(() => log.readAndClear({ iova: 0n, length }, bitmap))).toMatchObject({
      code: 'ERR_ARGUMENT',
      errno: 'EINVAL',
    });
    expect(driver.port.asked).toHaveLength(asked);
  });
});

it.each([
  [1n, 8],
  [PAGE, 8],
  [64n * PAGE, 8],
  [64n * PAGE + 1n, 16],
  [2n ** 40n, 2 ** 25],
])('a bitmap of %s bytes has %s bytes', (length, bytes) => {
  expect(cleanBitmap({ iova: 0n, length }, PAGE).bits).toHaveLength(bytes);
});
