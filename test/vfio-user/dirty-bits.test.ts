import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  VFIO_USER_DMA_MAP,
  VFIO_USER_DMA_UNMAP,
  vfio_user_bitmap,
  vfio_user_bitmap_range,
  vfio_user_dirty_pages,
  vfio_user_dma_map,
  vfio_user_dma_unmap,
} from '../../src/abi/vfio-user.ts';
import type { DmaLog, IovaRange } from '../../src/vfio/dma-log.ts';
import type { Server } from '../../src/vfio-user/client/server.ts';
import { DirtyPagesLog } from '../../src/vfio-user/proxy/dirty-pages-log.ts';
import { DirtyTranslation } from '../../src/vfio-user/proxy/dirty-translation.ts';
import { MappedRanges } from '../../src/vfio-user/proxy/mapped-ranges.ts';
import { numRuns } from '../support/runs.ts';

const PAGE = 4096n;
const GET = vfio_user_dirty_pages.size + vfio_user_bitmap_range.size;
const UNMAP = vfio_user_dma_unmap.size + vfio_user_bitmap.size;

/** The pages, by address, that a device has written to and that nobody was told of. */
type Dirty = Set<bigint>;

/** Which pages of a range a bitmap is to name, by the definition; they count as told. */
function taken(dirty: Dirty, { iova, length }: IovaRange, pageSize: bigint, into: Uint8Array): void {
  for (const page of dirty) {
    if (page + PAGE <= iova || page >= iova + length) continue;
    const bit = Number((page < iova ? 0n : page - iova) / pageSize);
    into[bit >> 3] = (into[bit >> 3] ?? 0) | (1 << (bit & 7));
    dirty.delete(page);
  }
}

const bytesFor = (length: bigint, pageSize: bigint): number =>
  Number((((length + pageSize - 1n) / pageSize + 63n) / 64n) * 8n);

/** A v1 server, of which only DIRTY_PAGES is asked: by whole mappings, in pages of 4 KiB. */
function v1Server(mappings: readonly IovaRange[], dirty: Dirty): { server: Server; flags: number[] } {
  const flags: number[] = [];
  const request = ({ body }: { readonly body: Uint8Array }): Uint8Array => {
    const asked = vfio_user_dirty_pages.decode(body);
    flags.push(asked.flags);
    if (asked.flags !== 4) return new Uint8Array(0);
    const range = vfio_user_bitmap_range.decode(body, vfio_user_dirty_pages.size);
    const isWhole = mappings.some(({ iova, length }) => iova === range.iova && length === range.size);
    expect([isWhole, range.bitmap_pgsize, range.bitmap_size]).toEqual([true, PAGE, BigInt(bytesFor(range.size, PAGE))]);
    const reply = new Uint8Array(asked.argsz);
    reply.set(body.subarray(0, GET));
    taken(dirty, { iova: range.iova, length: range.size }, PAGE, reply.subarray(GET));
    return reply;
  };
  return { server: { link: { request } } as unknown as Server, flags };
}

function mapped(mappings: readonly IovaRange[]): MappedRanges {
  const ranges = new MappedRanges();
  for (const { iova, length } of mappings) {
    ranges.note({
      command: VFIO_USER_DMA_MAP,
      body: vfio_user_dma_map.encode({ argsz: 32, addr: iova, size: length }),
    });
  }
  return ranges;
}

/** Up to four mappings, with holes between them or none. */
const layouts = fc
  .array(fc.record({ hole: fc.nat(3), pages: fc.integer({ min: 1, max: 200 }) }), { minLength: 1, maxLength: 4 })
  .map((parts) => {
    let at = 16n;
    return parts.map(({ hole, pages }): IovaRange => {
      const iova = (at + BigInt(hole)) * PAGE;
      at += BigInt(hole + pages);
      return { iova, length: BigInt(pages) * PAGE };
    });
  });
const step = fc.record({
  dirty: fc.array(fc.nat(900), { maxLength: 40 }),
  /** In bytes: a range ends within a page too. */
  from: fc.nat(900 * 4096),
  length: fc.integer({ min: 1, max: 900 * 4096 }),
  order: fc.constantFrom(0n, 1n, 4n, 9n),
  isWhole: fc.boolean(),
});

/** The steps, each: pages get dirty, and a range is asked for. Both sides are told of the same pages. */
function tried(
  mappings: readonly IovaRange[],
  steps: readonly (typeof step extends fc.Arbitrary<infer T> ? T : never)[],
  ask: (dirty: Dirty, range: IovaRange, pageSize: bigint) => Uint8Array,
  dirty: Dirty,
): void {
  const untold: Dirty = new Set();
  const isMapped = (page: bigint): boolean => mappings.some(({ iova, length }) => page >= iova && page < iova + length);
  for (const each of steps) {
    for (const n of each.dirty) {
      const page = BigInt(n) * PAGE;
      if (!isMapped(page)) continue;
      dirty.add(page);
      untold.add(page);
    }
    const pageSize = PAGE << each.order;
    const range = each.isWhole
      ? { iova: 0n, length: 1000n * PAGE }
      : { iova: BigInt(each.from), length: BigInt(each.length) };
    const expected = new Uint8Array(bytesFor(range.length, pageSize));
    taken(untold, range, pageSize, expected);
    expect(ask(dirty, range, pageSize)).toBeBytes(expected);
  }
}

describe('the dirty pages', () => {
  it('of a v1 server are what a v2 client is told, bit by bit, each once, whatever ranges and pages it asks for', () => {
    fc.assert(
      fc.property(layouts, fc.array(step, { minLength: 1, maxLength: 6 }), (mappings, steps) => {
        const dirty: Dirty = new Set();
        const { server, flags } = v1Server(mappings, dirty);
        const log = new DirtyPagesLog(server, mapped(mappings), PAGE);
        expect(log.start()).toBe(PAGE);
        tried(
          mappings,
          steps,
          (_dirty, range, pageSize) => {
            const bits = new Uint8Array(bytesFor(range.length, pageSize));
            log.readAndClear(range, { pageSize, bits });
            return bits;
          },
          dirty,
        );
        log.stop();
        expect([flags[0], flags.at(-1)]).toEqual([1, 2]);
      }),
      { numRuns: numRuns() },
    );
  });

  const v2Log = (dirty: Dirty): DmaLog => ({
    start: (_ranges, pageSize) => pageSize,
    stop: () => dirty.clear(),
    readAndClear: (range, { pageSize, bits }) => taken(dirty, range, pageSize, bits),
  });
  const START = vfio_user_dirty_pages.encode({ argsz: 8, flags: 1 });
  const STOP = vfio_user_dirty_pages.encode({ argsz: 8, flags: 2 });

  /** DIRTY_PAGES, or a DMA_UNMAP that asks for them; the reply's bits. */
  function inV1(translation: DirtyTranslation, range: IovaRange, pageSize: bigint, unmaps: boolean): Uint8Array {
    const size = bytesFor(range.length, pageSize);
    if (unmaps) {
      const body = new Uint8Array(UNMAP);
      vfio_user_dma_unmap.encode({ argsz: UNMAP + size, flags: 1, addr: range.iova, size: range.length }, body);
      vfio_user_bitmap.encode({ pgsize: pageSize, size: BigInt(size) }, body, vfio_user_dma_unmap.size);
      const unmap = translation.unmap(body);
      expect(vfio_user_dma_unmap.decode(unmap?.plain ?? new Uint8Array(24))).toEqual({
        argsz: 24,
        flags: 0,
        addr: range.iova,
        size: range.length,
      });
      return unmap?.reply.subarray(UNMAP) ?? new Uint8Array(0);
    }
    const body = new Uint8Array(GET);
    vfio_user_dirty_pages.encode({ argsz: GET + size, flags: 4 }, body);
    const asked = { iova: range.iova, size: range.length, bitmap_pgsize: pageSize, bitmap_size: BigInt(size) };
    vfio_user_bitmap_range.encode(asked, body, vfio_user_dirty_pages.size);
    const reply = translation.answer(body);
    expect(vfio_user_bitmap_range.decode(reply, vfio_user_dirty_pages.size)).toEqual(asked);
    return reply.subarray(GET);
  }

  it.each([
    ['DIRTY_PAGES', false],
    ['DMA_UNMAP', true],
  ])('of a v2 server are what %s of a v1 client is told, bit by bit, each once', (_name, unmaps) => {
    fc.assert(
      fc.property(layouts, fc.array(step, { minLength: 1, maxLength: 6 }), (mappings, steps) => {
        const dirty: Dirty = new Set();
        const translation = new DirtyTranslation(v2Log(dirty));
        translation.answer(START);
        tried(mappings, steps, (_dirty, range, pageSize) => inV1(translation, range, pageSize, unmaps), dirty);
        translation.answer(STOP);
      }),
      { numRuns: numRuns() },
    );
  });

  it('of a v1 server come out of both translations as they are', () => {
    fc.assert(
      fc.property(layouts, fc.array(step, { minLength: 1, maxLength: 6 }), fc.boolean(), (mappings, steps, unmaps) => {
        const dirty: Dirty = new Set();
        const { server } = v1Server(mappings, dirty);
        const translation = new DirtyTranslation(new DirtyPagesLog(server, mapped(mappings), PAGE));
        translation.answer(START);
        tried(mappings, steps, (_dirty, range, pageSize) => inV1(translation, range, pageSize, unmaps), dirty);
        translation.answer(STOP);
      }),
      { numRuns: numRuns() },
    );
  });

  it.each([
    ['no power of two', { bitmap_pgsize: 4097n, size: 8192n, bitmap_size: 8n }],
    ['pages of 0 bytes', { bitmap_pgsize: 0n, size: 8192n, bitmap_size: 8n }],
    ['a range of 0 bytes', { bitmap_pgsize: PAGE, size: 0n, bitmap_size: 8n }],
    ['a bitmap that is too small', { bitmap_pgsize: PAGE, size: 65n * PAGE, bitmap_size: 8n }],
    ['a bitmap that no message has room for', { bitmap_pgsize: PAGE, size: PAGE, bitmap_size: 2n ** 20n }],
  ])('are not told for %s', (_name, range) => {
    const translation = new DirtyTranslation(v2Log(new Set([0n])));
    translation.answer(START);
    const body = new Uint8Array(GET);
    vfio_user_dirty_pages.encode({ argsz: 2 ** 31, flags: 4 }, body);
    vfio_user_bitmap_range.encode({ iova: 0n, ...range }, body, vfio_user_dirty_pages.size);
    expect(() => translation.answer(body)).toThrow(expect.objectContaining({ errno: 'EINVAL' }) as Error);
  });

  it('of a mapping that has gone are asked for no more', () => {
    const mappings = [
      { iova: 0n, length: 4n * PAGE },
      { iova: 4n * PAGE, length: 4n * PAGE },
    ];
    const dirty: Dirty = new Set([0n, 5n * PAGE]);
    const ranges = mapped(mappings);
    ranges.note({ command: VFIO_USER_DMA_UNMAP, body: vfio_user_dma_unmap.encode({ addr: 0n, size: 4n * PAGE }) });
    const log = new DirtyPagesLog(v1Server(mappings.slice(1), dirty).server, ranges, PAGE);
    log.start();
    const bits = new Uint8Array(8);
    log.readAndClear({ iova: 0n, length: 8n * PAGE }, { pageSize: PAGE, bits });
    expect(bits).toBeBytes(Uint8Array.of(1 << 5, 0, 0, 0, 0, 0, 0, 0));
  });
});
