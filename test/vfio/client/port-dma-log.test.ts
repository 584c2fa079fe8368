import { beforeEach, describe, expect, it } from 'vitest';
import {
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
  vfio_device_feature_dma_logging_control,
  vfio_device_feature_dma_logging_range,
  vfio_device_feature_dma_logging_report,
} from '../../../src/abi/vfio-v2.ts';
import { dmaLogOf } from '../../../src/vfio/client/port-dma-log.ts';
import { cleanBitmap, type DmaLog, type IovaRange } from '../../../src/vfio/dma-log.ts';
import { BytePort, failed } from '../../support/byte-port.ts';
import { outcome, thrownBy } from '../../support/errno.ts';

const PAGE = 4096n;
const MiB = 1024n * 1024n;

/** A driver that logs in pages of 4 KiB at least, as drivers/vfio/vfio_main.c of Linux 6.12 has it asked. */
class LoggingDriver {
  readonly port = new BytePort();
  /** Pages of 4 KiB that the device has written to and nobody has read. */
  readonly written = new Set<bigint>();
  ranges: IovaRange[] | undefined;

  constructor() {
    const { features } = this.port;
    features.set(VFIO_DEVICE_FEATURE_DMA_LOGGING_START, { set: (data, pointed) => this.#start(data, pointed) });
    features.set(VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, { set: (data) => this.#stop(data) });
    features.set(VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, { get: (data, pointed) => this.#report(data, pointed) });
  }

  writes(...addresses: bigint[]): void {
    for (const address of addresses) this.written.add(address / PAGE);
  }

  #start(data: Uint8Array, pointed: Uint8Array = new Uint8Array(0)): void {
    if (this.ranges !== undefined) throw failed('EBUSY');
    const control = vfio_device_feature_dma_logging_control.view(data);
    if (control.num_ranges === 0) throw failed('EINVAL');
    const { size } = vfio_device_feature_dma_logging_range;
    expect(pointed).toHaveLength(control.num_ranges * size);
    const ranges = Array.from({ length: control.num_ranges }, (_, n) =>
      vfio_device_feature_dma_logging_range.decode(pointed, n * size),
    );
    if (ranges.some(({ iova, length }) => (iova | length) % control.page_size !== 0n)) throw failed('EINVAL');
    if (control.page_size < PAGE) control.page_size = PAGE;
    this.ranges = ranges;
  }

  #stop(data: Uint8Array): void {
    expect(data).toHaveLength(0);
    this.ranges = undefined;
  }

  #report(data: Uint8Array, pointed: Uint8Array = new Uint8Array(0)): void {
    const { iova, length, page_size } = vfio_device_feature_dma_logging_report.decode(data);
    if (page_size < PAGE || this.ranges === undefined) throw failed('EINVAL');
    for (const page of this.written) {
      const at = page * PAGE - iova;
      if (at < 0n || at >= length) continue;
      const bit = Number(at / page_size);
      pointed[bit >> 3] = (pointed[bit >> 3] ?? 0) | (1 << (bit & 7));
      this.written.delete(page);
    }
  }
}

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
