import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PRESENT_DRAFT_STATE_SIZE } from '../../../src/bridge/present-draft-state.ts';
import type { DraftDevice } from '../../../src/v1/drafts/device.ts';
import { mostPages, readDirtyPages } from '../../../src/v1/drafts/dirty.ts';
import { DraftAccess } from '../../../src/v1/drafts/registers.ts';
import { LOGGED_PAGES_LIVE_SIZE, LOGGED_PAGES_STATE_SIZE, LoggedPages } from '../../../src/vfio/client/logged-pages.ts';
import type { DirtyBitmap, DmaLog, IovaRange } from '../../../src/vfio/dma-log.ts';
import { GENERATIONS, presentDraft } from '../../support/drafts.ts';
import { failure } from '../../support/errno.ts';
import { numRuns, PROPERTY_TIMEOUT } from '../../support/runs.ts';
import { v1Sim } from '../../support/sims.ts';

const PAGE = 4096n;
const SECTION = 8192;
const MOST = mostPages(SECTION);

/** A device that logs its DMA by pages of 4096 bytes. As mlx5, it refuses a second start (mlx5vf_start_page_tracker, Linux 6.12). */
class LoggingDevice implements DmaLog {
  readonly asked: string[] = [];
  /** Asked before each request; what it throws, the request fails with. */
  refuse: (request: string) => void = () => {};
  /** Asked once a request has been carried out. */
  after: (request: string) => void = () => {};
  ranges: readonly IovaRange[] | undefined;
  readonly #dirty = new Set<bigint>();

  write(page: number): void {
    const at = BigInt(page) * PAGE;
    if (this.ranges?.some(({ iova, length }) => at >= iova && at < iova + length) === true) this.#dirty.add(at);
  }

  start(ranges: readonly IovaRange[], pageSize: bigint): bigint {
    const text = ranges.map(({ iova, length }) => `${iova / PAGE}+${length / PAGE}`).join(' ');
    this.#request(`start ${text}`, () => {
      if (this.ranges !== undefined || ranges.length === 0) throw failure('EINVAL');
      this.#dirty.clear();
      this.ranges = ranges;
    });
    return pageSize;
  }

  stop(): void {
    this.#request('stop', () => {
      if (this.ranges === undefined) throw failure('EINVAL');
      this.ranges = undefined;
    });
  }

  readAndClear({ iova, length }: IovaRange, { pageSize, bits }: DirtyBitmap): void {
    this.#request('report', () => {
      if (this.ranges === undefined) throw failure('EINVAL');
      for (const at of this.#dirty) {
        if (at < iova || at >= iova + length) continue;
        const bit = Number((at - iova) / pageSize);
        bits[bit >> 3] = (bits[bit >> 3] ?? 0) | (1 << (bit & 7));
        this.#dirty.delete(at);
      }
    });
  }

  #request(request: string, carryOut: () => void): void {
    this.asked.push(request);
    this.refuse(request);
    carryOut();
    this.after(request);
  }
}

interface Span {
  readonly first: number;
  readonly pages: number;
}

/** A device of a draft whose dirty pages are those of a log. A process that serves it may be killed. */
class Bed {
  readonly driver = new LoggingDevice();
  readonly #draft: (typeof GENERATIONS)[number];
  readonly #v1 = v1Sim(`vendor-v1,size=20000,section=${SECTION}`).device;
  readonly #live = new Uint8Array(LOGGED_PAGES_LIVE_SIZE);
  readonly #section = new Uint8Array(SECTION);
  readonly #committed = [new Uint8Array(PRESENT_DRAFT_STATE_SIZE), new Uint8Array(LOGGED_PAGES_STATE_SIZE)] as const;
  #working = this.#committed;
  #device!: DraftDevice;
  readonly said: string[] = [];

  constructor(draft: (typeof GENERATIONS)[number], find?: () => DmaLog | undefined) {
    this.#draft = draft;
    this.#find = find ?? (() => this.driver);
    this.#begin();
  }

  readonly #find: () => DmaLog | undefined;

  /** What a process that was killed has left in live memory. */
  #left: Uint8Array | undefined;

  /** Kills the process that is in a call: whatever it would still do is not done. */
  kill(): never {
    this.#left ??= this.#live.slice();
    this.driver.refuse = () => {
      throw new Error('killed');
    };
    throw new Error('killed');
  }

  /** A process goes on from what was committed. */
  #begin(): void {
    this.#left = undefined;
    this.driver.refuse = () => {};
    this.driver.after = () => {};
    const [state, pages] = (this.#working = [this.#committed[0].slice(), this.#committed[1].slice()] as const);
    this.#device = presentDraft(this.#draft, this.#v1, {
      dataSection: this.#section,
      state,
      dirty: new LoggedPages(this.#find, pages, this.#live),
      warn: (message) => this.said.push(message),
    });
  }

  /** What a user sees: each access is a call, which is committed, or is repeated by a successor if the process is killed in it. */
  readonly device: DraftDevice = ((bed: Bed): DraftDevice => ({
    get draft() {
      return bed.#draft;
    },
    get regionSize() {
      return bed.#device.regionSize;
    },
    get dataSection() {
      return bed.#device.dataSection;
    },
    get mapped() {
      return bed.#section;
    },
    read: (offset, into) => bed.#call((device) => device.read(offset, into)),
    write: (offset, from) => bed.#call((device) => device.write(offset, from)),
    reset: () => bed.#call((device) => device.reset()),
  }))(this);

  #call(serve: (device: DraftDevice) => void): void {
    for (;;) {
      try {
        serve(this.#device);
      } catch (error) {
        if (this.#left === undefined) throw error;
      }
      if (this.#left === undefined) {
        this.#committed[0].set(this.#working[0]);
        this.#committed[1].set(this.#working[1]);
        return;
      }
      this.#live.set(this.#left);
      this.#begin();
    }
  }

  setState(state: number): void {
    new DraftAccess(this.device, this.#draft).write('device_state', state);
  }

  dirty(span: Span): number[] {
    const found: number[] = [];
    readDirtyPages(this.device, { ...span, pageSize: Number(PAGE) }, (first, count, bitmap) => {
      for (let n = 0; n < count; n += 1) if (((bitmap[n >> 3] ?? 0) >> (n & 7)) & 1) found.push(first + n);
    });
    return found;
  }
}

const all = ({ first, pages }: Span): number[] => Array.from({ length: pages }, (_, n) => first + n);
const LOW: Span = { first: 0, pages: 160 };
const HIGH: Span = { first: 1024, pages: 2 * MOST + 3 };

describe.each(GENERATIONS)('the log of a device that is shown as %s', (draft) => {
  it('begins with the range that is asked about first, of which all is dirty, and then tells what was written', () => {
    const bed = new Bed(draft);
    const { driver } = bed;
    bed.setState(3);
    expect(driver.asked).toEqual([]);
    expect(bed.dirty(HIGH)).toEqual(all(HIGH));
    expect(driver.asked).toEqual(['stop', `start 1024+${HIGH.pages}`]);
    for (const page of [1024, 1500, 1024 + MOST, 1024 + 2 * MOST + 2, 7]) driver.write(page);
    expect(bed.dirty(HIGH)).toEqual([1024, 1500, 1024 + MOST, 1024 + 2 * MOST + 2]);
    expect(bed.dirty(HIGH)).toEqual([]);
    driver.write(1030);
    expect(bed.dirty({ first: 1030, pages: 2 })).toEqual([1030]);
    bed.setState(draft === 'draft-2018' ? 4 : 2);
    driver.write(1025);
    expect(bed.dirty(HIGH)).toEqual([1025]);
    expect(driver.ranges).toHaveLength(1);
    bed.setState(draft === 'draft-2018' ? 5 : 0);
    expect(driver.ranges).toBeUndefined();
    expect(bed.said).toEqual([]);
  });

  it('is begun anew for a range more, and all that it had is dirty once', () => {
    const bed = new Bed(draft);
    bed.setState(3);
    bed.dirty(LOW);
    bed.driver.write(3);
    expect(bed.dirty(HIGH)).toEqual(all(HIGH));
    expect(bed.driver.asked.at(-1)).toBe(`start 0+160 1024+${HIGH.pages}`);
    expect(bed.dirty(LOW)).toEqual(all(LOW));
    bed.driver.write(5);
    expect([bed.dirty(LOW), bed.dirty(HIGH)]).toEqual([[5], []]);
  });

  it('is begun for ranges that do not overlap', () => {
    const bed = new Bed(draft);
    bed.setState(3);
    bed.dirty(LOW);
    const across = { first: 100, pages: 100 };
    expect(bed.dirty(across)).toEqual(all(across));
    expect(bed.driver.asked.at(-1)).toBe('start 0+200');
    // of neither is it known whether the other has cleared it
    expect([bed.dirty(across), bed.dirty(LOW)]).toEqual([all(across), all(LOW)]);
  });

  it('was not told to its end: what is left of it stays dirty', () => {
    const bed = new Bed(draft);
    bed.setState(3);
    const registers = new DraftAccess(bed.device, draft);
    const [first, total, copied] = (
      draft === 'draft-2018'
        ? ['dirty_pfns_start_addr', 'dirty_pfns_total', 'dirty_pfns_copied']
        : ['start_pfn', 'total_pfns', 'copied_pfns']
    ) as ['start_pfn', 'total_pfns', 'copied_pfns'];
    registers.write(first, draft === 'draft-2018' ? BigInt(HIGH.first) * PAGE : BigInt(HIGH.first));
    registers.write(total, BigInt(HIGH.pages));
    expect(registers.count(copied)).toBe(MOST);
    expect(bed.dirty(HIGH)).toEqual(all(HIGH));
    expect(bed.dirty(HIGH)).toEqual([]);
  });

  it.each(['start', 'report'])(
    'fails at %s: all is dirty until the migration is over, and the next begins anew',
    (at) => {
      const bed = new Bed(draft);
      const { driver } = bed;
      driver.refuse = (request) => {
        if (request.startsWith(at)) throw failure('EIO');
      };
      bed.setState(3);
      bed.dirty(LOW);
      expect(bed.dirty(LOW)).toEqual(all(LOW));
      driver.refuse = () => {};
      expect(bed.dirty(LOW)).toEqual(all(LOW));
      expect(bed.said).toEqual([
        expect.stringMatching('dirty pages are not logged, all of the memory counts as dirty'),
      ]);
      if (draft === 'draft-2018') bed.setState(9);
      bed.setState(1);
      bed.setState(3);
      bed.dirty(LOW);
      driver.write(9);
      expect(bed.dirty(LOW)).toEqual([9]);
    },
  );

  it('was told to a process that was killed before its user knew: all is dirty', () => {
    const bed = new Bed(draft);
    bed.setState(3);
    bed.dirty(LOW);
    bed.driver.write(5);
    bed.driver.after = () => bed.kill();
    expect(bed.dirty(LOW)).toEqual(all(LOW));
    expect(bed.driver.asked.slice(-2)).toEqual(['start 0+160', 'report']);
  });

  it('is not there: all is dirty', () => {
    const bed = new Bed(draft, () => undefined);
    bed.setState(3);
    expect([bed.dirty(LOW), bed.dirty(LOW)]).toEqual([all(LOW), all(LOW)]);
    bed.setState(1);
    expect(bed.said).toHaveLength(1);
  });

  it(
    'tells each page that was written to since it was told last, whenever the process is killed',
    { timeout: PROPERTY_TIMEOUT },
    () => {
      const spans: readonly Span[] = [
        LOW,
        HIGH,
        { first: 160, pages: 8 },
        { first: 100, pages: 100 },
        { first: 1030, pages: 70 },
      ];
      const step = fc.oneof(
        fc.record({ write: fc.oneof(fc.nat(200), fc.integer({ min: 1024, max: 1024 + HIGH.pages - 1 })) }),
        fc.record({
          ask: fc.constantFrom(...spans),
          kill: fc.option(fc.record({ at: fc.nat(3), after: fc.boolean() })),
        }),
      );
      fc.assert(
        fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
          const bed = new Bed(draft);
          const { driver } = bed;
          bed.setState(3);
          const written = new Set<number>();
          for (const each of steps) {
            if ('write' in each) {
              driver.write(each.write);
              written.add(each.write);
              continue;
            }
            let left = each.kill?.at ?? -1;
            const die = (): void => {
              left -= 1;
              if (left === -1) bed.kill();
            };
            if (each.kill?.after === true) driver.after = die;
            else driver.refuse = die;
            const told = new Set(bed.dirty(each.ask));
            driver.after = () => {};
            driver.refuse = () => {};
            const { first, pages } = each.ask;
            const missing = [...written].filter((page) => page >= first && page < first + pages && !told.has(page));
            expect(missing).toEqual([]);
            for (const page of told) written.delete(page);
          }
        }),
        { numRuns: numRuns(150) },
      );
    },
  );
});
