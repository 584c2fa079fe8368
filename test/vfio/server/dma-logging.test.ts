import * as fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import {
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
  vfio_device_feature_dma_logging_control,
  vfio_device_feature_dma_logging_range,
  vfio_device_feature_dma_logging_report,
} from '../../../src/abi/vfio-v2.ts';
import type { IovaRange } from '../../../src/vfio/dma-log.ts';
import type { PointingArgument } from '../../../src/vfio/argument.ts';
import { device_log, DeviceLog, LOGGED_RANGES_SIZE } from '../../../src/vfio/server/device-log.ts';
import { deviceFeature } from '../../../src/vfio/server/feature-request.ts';
import { WINDOW_LOG_SIZE, WindowLog } from '../../../src/vfio/server/window-log.ts';
import { outcome } from '../../support/errno.ts';
import { numRuns } from '../../support/runs.ts';
import { v2Sim } from '../../support/sims.ts';
import { BAD_ADDRESS, FILLER, UserMemory } from '../../support/user-memory.ts';

const HEADER = vfio_device_feature.size;
const START = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
const STOP = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP;
const REPORT = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT;
const PAGE = 4096n;
const BEGIN = 0x1000_0000;
const PAGES = 200;
const TOP = 2n ** 64n;

const { device } = v2Sim('qat,size=16K');
const memory = new UserMemory();
/** Where pointers lead to: bitmaps and ranges. */
const elsewhere = BigInt(memory.address);
let logMemory: { window: Uint8Array; ranges: Uint8Array; my: Uint8Array };
let log: DeviceLog;

const logOf = ({ window, ranges, my }: typeof logMemory): DeviceLog =>
  new DeviceLog(new WindowLog(window, { iova: BEGIN, pages: PAGES }), ranges, device_log.view(my));

beforeEach(() => {
  logMemory = {
    window: new Uint8Array(WINDOW_LOG_SIZE),
    ranges: new Uint8Array(LOGGED_RANGES_SIZE),
    my: new Uint8Array(device_log.size),
  };
  log = logOf(logMemory);
});

const noDataFd = (): void => {
  throw new Error('no session begins');
};

const request = (argument: PointingArgument, of: DeviceLog | undefined = log): string =>
  outcome(() => deviceFeature(argument, device, noDataFd, of));

function argumentOf(flags: number, data: Uint8Array, argsz = HEADER + data.length): PointingArgument {
  const bytes = new Uint8Array(HEADER + data.length);
  vfio_device_feature.encode({ argsz, flags }, bytes);
  bytes.set(data, HEADER);
  return memory.argument(memory.put(bytes));
}

const control = vfio_device_feature_dma_logging_control;

function start(
  ranges: readonly IovaRange[],
  { page_size = PAGE, num_ranges = ranges.length, at = elsewhere } = {},
): string {
  const argument = argumentOf(START, control.encode({ page_size, num_ranges, ranges: at }));
  const { size } = vfio_device_feature_dma_logging_range;
  for (const [n, range] of ranges.entries())
    vfio_device_feature_dma_logging_range.encode(range, memory.bytes, n * size);
  return request(argument);
}

const stop = (): string => request(argumentOf(STOP, new Uint8Array(0)));

interface Asked {
  readonly page_size?: bigint;
  readonly bitmap?: bigint;
  /** What the user's bitmap holds before. */
  readonly before?: number;
}

function report({ iova, length }: IovaRange, { page_size = PAGE, bitmap = elsewhere, before = 0 }: Asked = {}): string {
  const data = vfio_device_feature_dma_logging_report.encode({ iova, length, page_size, bitmap });
  const argument = argumentOf(REPORT, data);
  memory.bytes.fill(before, 0, 512);
  return request(argument);
}

/** The bits that are set in the user's bitmap. */
const bits = (bytes = 64): number[] =>
  Array.from({ length: bytes * 8 }, (_, n) => n).filter((n) => (((memory.bytes[n >> 3] ?? 0) >> (n & 7)) & 1) === 1);

/** A range by pages, counted from where the log's window begins. */
const pages = (from: number, count: number): IovaRange => ({
  iova: BigInt(BEGIN) + BigInt(from) * PAGE,
  length: BigInt(count) * PAGE,
});

function write(...written: number[]): void {
  for (const page of written) log.note(page, BEGIN + page * 4096);
}

describe('DMA_LOGGING features', () => {
  it('are there only of a device that has a log', () => {
    for (const flags of [START, STOP, REPORT]) {
      for (const probe of [0, VFIO_DEVICE_FEATURE_PROBE]) {
        const argument = argumentOf(flags | probe, new Uint8Array(32));
        expect(outcome(() => deviceFeature(argument, device, noDataFd))).toBe('ENOTTY');
      }
    }
  });

  it('have the operations of the kernel’s, which a PROBE tells and does not carry out', () => {
    const other = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET;
    for (const flags of [START, STOP, REPORT]) {
      expect(request(argumentOf(VFIO_DEVICE_FEATURE_PROBE | flags, new Uint8Array(0)))).toBe('OK');
      expect(request(argumentOf(VFIO_DEVICE_FEATURE_PROBE | (flags ^ other), new Uint8Array(0)))).toBe('EINVAL');
      expect(request(argumentOf(flags ^ other, new Uint8Array(64)))).toBe('EINVAL');
    }
    expect(log.isOn).toBe(false);
    expect(request(argumentOf(START, new Uint8Array(64), HEADER + 23))).toBe('EINVAL');
    expect(request(argumentOf(REPORT, new Uint8Array(64), HEADER + 31))).toBe('EINVAL');
  });
});

describe('DMA_LOGGING_START', () => {
  it('takes ranges of whole pages without overlap, and says by which pages the device logs', () => {
    expect(start([pages(0, 10), pages(20, 10), pages(10, 10)], { page_size: 1n })).toBe('OK');
    expect(control.decode(memory.end(control.size))).toMatchObject({
      page_size: PAGE,
      num_ranges: 3,
      ranges: elsewhere,
    });
    expect(start([pages(0, 10)])).toBe('EINVAL'); // it is on already
    expect([stop(), stop()]).toEqual(['OK', 'OK']);
    expect(start([pages(0, 10)], { page_size: 4n * PAGE })).toBe('EINVAL');
    expect(start([pages(0, 8)], { page_size: 4n * PAGE })).toBe('OK');
  });

  it('refuses what the kernel refuses, with its errno', () => {
    expect(start([])).toBe('EINVAL');
    expect(start([], { num_ranges: 257, at: BAD_ADDRESS })).toBe('E2BIG');
    expect(start([], { num_ranges: 2 ** 32 - 1, at: BAD_ADDRESS })).toBe('E2BIG');
    expect(start([], { num_ranges: 1, at: BAD_ADDRESS })).toBe('EFAULT');
    expect(start([], { num_ranges: 1, at: TOP - 8n })).toBe('EFAULT');
    for (const [range, errno] of [
      [{ iova: 1n, length: PAGE }, 'EINVAL'],
      [{ iova: 0n, length: PAGE + 8n }, 'EINVAL'],
      [{ iova: TOP - PAGE, length: PAGE }, 'EOVERFLOW'],
      [{ iova: TOP - PAGE, length: TOP - PAGE }, 'EOVERFLOW'],
    ] as const) {
      expect(start([pages(0, 1), range]), String(range.iova)).toBe(errno);
    }
    for (const second of [pages(0, 1), pages(9, 1), pages(9, 20), pages(-5, 6), pages(-5, 50), pages(0, 10)]) {
      expect(start([pages(0, 10), second]), String(second.iova)).toBe('EINVAL');
    }
    // no size at all is a mask of all bits
    expect(start([pages(0, 1)], { page_size: 0n })).toBe('EINVAL');
    expect(log.isOn).toBe(false);
    expect(start([{ iova: 0n, length: 0n }, pages(0, 1)])).toBe('OK');
  });

  it('takes 256 ranges', () => {
    const many = Array.from({ length: 256 }, (_, n) => pages(2 * n, 1));
    expect(start(many)).toBe('OK');
    write(0, 1, 2, 198, 199);
    expect(report(pages(0, PAGES))).toBe('OK');
    expect(bits()).toEqual([0, 2, 198]);
  });

  it('logs nothing for a user who does not get the answer', () => {
    const argument = argumentOf(START, control.encode({ page_size: PAGE, num_ranges: 1, ranges: elsewhere }));
    vfio_device_feature_dma_logging_range.encode(pages(0, 1), memory.bytes);
    const deaf = { ...argument, write: () => memory.argument(BAD_ADDRESS).write(new Uint8Array(1)) };
    expect(request(deaf)).toBe('EFAULT');
    expect(log.isOn).toBe(false);
  });

  it('begins with a clean log', () => {
    start([pages(0, 10)]);
    write(1);
    stop();
    write(2);
    start([pages(0, 10)]);
    write(3);
    report(pages(0, 10));
    expect(bits()).toEqual([3]);
  });
});

describe('DMA_LOGGING_REPORT', () => {
  it('is for a device that logs', () => {
    expect(report(pages(0, 1))).toBe('EINVAL');
    start([pages(0, 1)]);
    expect(report(pages(0, 1))).toBe('OK');
    stop();
    expect(report(pages(0, 1))).toBe('EINVAL');
  });

  it('refuses what the kernel refuses, with its errno', () => {
    start([pages(0, 10)]);
    for (const page_size of [0n, 1n, 2048n, 4095n, 5000n, 12288n, 2n ** 64n - 1n]) {
      expect(report(pages(0, 10), { page_size }), String(page_size)).toBe('EINVAL');
    }
    expect(report({ iova: TOP - PAGE, length: PAGE })).toBe('EOVERFLOW');
    expect(report({ iova: PAGE, length: TOP - 1n })).toBe('EOVERFLOW');
  });

  it('tells of the range alone, and only sets bits', () => {
    start([pages(0, 100)]);
    write(1, 5, 6, 99);
    expect(report(pages(4, 2), { before: 0x80 })).toBe('OK');
    expect(bits(8)).toEqual([1, 7, 15, 23, 31, 39, 47, 55, 63]);
    expect(report(pages(4, 2))).toBe('OK');
    expect(bits()).toEqual([]);
    expect(report(pages(0, 100))).toBe('OK');
    expect(bits()).toEqual([1, 6, 99]);
  });

  it('tells by pages of another size, if it is asked so', () => {
    start([pages(0, PAGES)]);
    write(5, 6, 7, 100);
    expect(report(pages(0, PAGES), { page_size: 65536n })).toBe('OK');
    expect(bits()).toEqual([0, 6]);
    write(5);
    expect(report({ iova: 0n, length: TOP - 1n }, { page_size: 2n ** 63n })).toBe('OK');
    expect(bits()).toEqual([0]);
  });

  it('touches no byte that tells of nothing', () => {
    start([pages(0, PAGES)]);
    write(70);
    const before = FILLER;
    expect(report({ iova: BigInt(BEGIN) - 64n * PAGE, length: 2n ** 50n }, { before })).toBe('OK');
    expect(memory.bytes.subarray(0, 32)).toBeBytes(
      Uint8Array.from({ length: 32 }, (_, n) => (n === 16 ? before | 0x40 : before)),
    );
  });

  it('tells later what could not be told, to whoever asks with memory', () => {
    start([pages(0, PAGES)]);
    write(3, 9);
    for (const bitmap of [BAD_ADDRESS, TOP - 8n, 2n ** 63n]) {
      expect(report(pages(0, PAGES), { bitmap })).toBe('EFAULT');
    }
    expect(report(pages(0, PAGES))).toBe('OK');
    expect(bits()).toEqual([3, 9]);
  });

  it('tells again what a process has told that was killed, and goes on with its ranges', () => {
    start([pages(0, 10)]);
    write(3);
    report(pages(0, PAGES));
    log = logOf(logMemory);
    write(4, 11);
    expect(report(pages(0, PAGES))).toBe('OK');
    expect(bits()).toEqual([3, 4]);
  });

  it('is exact for any ranges and questions', () => {
    const part = fc.tuple(fc.integer({ min: 0, max: PAGES - 1 }), fc.integer({ min: 1, max: 60 }));
    const written = fc.array(fc.integer({ min: 0, max: PAGES - 1 }), { maxLength: 60 });
    fc.assert(
      fc.property(part, written, part, fc.integer({ min: 12, max: 18 }), ([at, count], wrote, [from, asked], order) => {
        stop();
        expect(start([pages(at, count)])).toBe('OK');
        write(...wrote);
        const page_size = 1n << BigInt(order);
        expect(report(pages(from, asked), { page_size })).toBe('OK');
        const dirty = wrote.filter((n) => n >= at && n < at + count && n >= from && n < from + asked);
        const expected = new Set(dirty.map((n) => Number((BigInt(n - from) * PAGE) / page_size)));
        expect(bits(128)).toEqual([...expected].toSorted((a, b) => a - b));
      }),
      { numRuns: numRuns() },
    );
  });
});
