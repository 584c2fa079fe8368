import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  defaultWindow,
  DMA_MAGIC,
  DMA_PAGE,
  DMA_WINDOW_LIMIT,
  dma_record,
  dmaPage,
  DmaPace,
  encodeDmaRecord,
} from '../../src/sim/dma.ts';
import { LOG_PAGE, WINDOW_PAGES } from '../../src/vfio/server/window-log.ts';
import { numRuns } from '../support/runs.ts';

const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const counters = fc.oneof(u32, fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }));

describe('dmaPage', () => {
  it('names a page of the window, the same one each time', () => {
    const pages = fc.integer({ min: 1, max: WINDOW_PAGES });
    fc.assert(
      fc.property(u32, fc.integer({ min: 0, max: 63 }), counters, pages, (seed, device, counter, among) => {
        const page = dmaPage({ seed, device }, counter, among);
        expect(Number.isInteger(page) && page >= 0 && page < among).toBe(true);
        expect(dmaPage({ seed, device }, counter, among)).toBe(page);
      }),
      { numRuns: numRuns() },
    );
  });

  /** The pages of a device's first writes. */
  const first = (seed: number, device: number, count: number, pages: number, from = 0): number[] =>
    Array.from({ length: count }, (_, n) => dmaPage({ seed, device }, from + n, pages));

  it('comes to all pages alike', () => {
    const hits = new Uint32Array(64);
    for (const page of first(1, 0, 64_000, 64)) hits[page] = (hits[page] ?? 0) + 1;
    expect(Math.min(...hits)).toBeGreaterThan(850);
    expect(Math.max(...hits)).toBeLessThan(1150);
  });

  it('is another sequence with another seed, of another device, and behind 2^32 writes', () => {
    const some = [first(0, 0, 8, 2 ** 20), first(1, 0, 8, 2 ** 20), first(0, 1, 8, 2 ** 20)];
    const sequences = [...some, first(0, 0, 8, 2 ** 20, 2 ** 32)];
    expect(new Set(sequences.map((pages) => pages.join())).size).toBe(4);
  });

  // a program that checks another run's memory has these from there
  it('goes where it has always gone', () => {
    expect(first(7, 1, 4, 4032)).toMatchInlineSnapshot(`
      [
        743,
        3767,
        3240,
        2501,
      ]
    `);
  });
});

it('a record says whose it is and where, in little endian', () => {
  const bytes = new Uint8Array(dma_record.size);
  encodeDmaRecord({ seed: 7, device: 1 }, 2 ** 40 + 5, 0x1_2345_6000, bytes);
  expect(Buffer.from(bytes.subarray(0, 8)).toString('latin1')).toBe('vfio-dma');
  const fields = { iova: 0x1_2345_6000, counter: 2 ** 40 + 5, seed: 7, device: 1 };
  expect(dma_record.decode(bytes)).toEqual({ magic: DMA_MAGIC, ...fields });
  expect(new DataView(bytes.buffer).getBigUint64(8, true)).toBe(0x1_2345_6000n);
});

describe('the window of a device that is told none', () => {
  it('is the third quarter of a mapping', () => {
    expect(defaultWindow({ at: 2 ** 20, size: 63 * 2 ** 20 })).toEqual({ at: 2 ** 20 + 33_030_144, size: 16_515_072 });
  });

  it('is whole pages within the mapping, as many as a log has room for', () => {
    expect(LOG_PAGE).toBe(DMA_PAGE);
    expect(WINDOW_PAGES * LOG_PAGE).toBe(DMA_WINDOW_LIMIT);
    const page = fc.integer({ min: 0, max: 2 ** 34 });
    fc.assert(
      fc.property(page, fc.integer({ min: 1, max: 2 ** 34 }), (at, size) => {
        const mapping = { at: at * DMA_PAGE, size: size * DMA_PAGE };
        const window = defaultWindow(mapping);
        expect([window.at % DMA_PAGE, window.size % DMA_PAGE]).toEqual([0, 0]);
        expect(window.at).toBeGreaterThanOrEqual(mapping.at);
        expect(window.at + window.size).toBeLessThanOrEqual(mapping.at + mapping.size);
        expect(window.size).toBe(Math.min(DMA_WINDOW_LIMIT, Math.floor(size / 4) * DMA_PAGE));
      }),
      { numRuns: numRuns() },
    );
  });
});

describe('the pace of a device', () => {
  it('is its rate, by the clock, however often it is asked', () => {
    const gaps = fc.array(fc.double({ min: 0, max: 2, noNaN: true }), { minLength: 1, maxLength: 200 });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100_000 }), gaps, (rate, between) => {
        const pace = new DmaPace(rate);
        let now = 1000;
        let written = pace.due(now);
        expect(written).toBe(0);
        for (const gap of between) written += pace.due((now += gap));
        // no more than the rate; less only by what a burst leaves out
        expect(written).toBeLessThanOrEqual(((now - 1000) * rate) / 1000 + 1e-6);
        if (rate <= 10_000) expect(written).toBeGreaterThan(((now - 1000) * rate) / 1000 - 1.001);
      }),
      { numRuns: numRuns() },
    );
  });

  it('makes up for 20 milliseconds and 256 pages at most', () => {
    for (const [rate, burst] of [
      [1, 1],
      [50, 1],
      [1000, 20],
      [12_800, 256],
      [100_000, 256],
    ] as const) {
      const pace = new DmaPace(rate);
      pace.due(0);
      expect(pace.due(1e9), String(rate)).toBe(burst);
      expect(pace.due(1e9), String(rate)).toBe(0);
    }
  });

  it('is asked again when a page is due, and not within two milliseconds', () => {
    const slow = new DmaPace(10);
    slow.due(0);
    expect(slow.next(0)).toBe(100);
    slow.due(150);
    expect(slow.next(150)).toBe(200);
    const fast = new DmaPace(100_000);
    fast.due(0);
    expect(fast.next(0)).toBe(2);
    expect(fast.due(2)).toBe(200);
    expect(fast.next(2)).toBe(4);
  });

  it('owes nothing for a pause', () => {
    const pace = new DmaPace(1000);
    pace.due(0);
    expect(pace.due(5)).toBe(5);
    pace.pause();
    expect(pace.due(1000)).toBe(0);
    expect(pace.due(1003)).toBe(3);
  });
});
