import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { oweAll, readDirty, startLogs, stopLogs, type NamedLog } from '../../../src/interpose/bridged/dirty-pages.ts';
import { DIRTY_STATE_SIZE, DirtyState } from '../../../src/interpose/memory/dirty-state.ts';
import { Ledger, Ledgers, LEDGERS_SIZE, ledgerSize } from '../../../src/interpose/memory/ledger.ts';
import { PageBits } from '../../../src/vfio/page-bits.ts';
import type { PageRange, PageSet } from '../../../src/vfio/page-ranges.ts';
import {
  EXACT,
  HardwareContainer,
  isIn,
  Killed,
  LIKE_PDS,
  pagesIn,
  SimLog,
  type Mishap,
} from '../../support/dirty-world.ts';

const MAPPINGS: PageSet = [
  { first: 0, end: 160 },
  { first: 192, end: 203 },
  { first: 203, end: 240 },
  { first: 256, end: 900 },
  { first: 2 ** 20, end: 2 ** 20 + 300 },
];

/** A VMM's container, its devices, and the supervisors between them, one after the other. */
class World {
  readonly container: HardwareContainer;
  readonly logs: SimLog[];
  /** Pages that were written to, and that the VMM has not been told of. */
  readonly untold = new Set<number>();
  readonly #head = new Uint8Array(LEDGERS_SIZE);
  readonly #memory = new Uint8Array(ledgerSize(DIRTY_STATE_SIZE));
  #ledgers = new Ledgers(this.#head);
  state = new DirtyState(new Ledger(this.#ledgers, 0, this.#memory, DIRTY_STATE_SIZE));

  constructor(habits = [EXACT], pageSize = 4096n) {
    this.container = new HardwareContainer(MAPPINGS, pageSize);
    this.logs = habits.map((habit) => new SimLog(habit, pageSize));
  }

  get named(): NamedLog[] {
    return this.logs.map((log, n) => ({ name: `device ${n}`, log }));
  }

  /** Does what a call asks for. Killed in its midst, a successor takes over and, if its caller waits still, does it again. */
  call<T>(work: () => T, isServedAgain = true): T | undefined {
    for (;;) {
      try {
        const result = work();
        this.#ledgers.commit([this.state.ledger]);
        return result;
      } catch (error) {
        if (!(error instanceof Killed)) throw error;
        this.#ledgers = new Ledgers(this.#head);
        this.state = new DirtyState(new Ledger(this.#ledgers, 0, this.#memory, DIRTY_STATE_SIZE));
        if (!isServedAgain) return undefined;
      }
    }
  }

  start(): string | undefined {
    return this.call(() => {
      this.container.start();
      if (this.state.head.started === 0) this.untold.clear(); // before a log is started, everything counts as dirty
      return startLogs(this.state, this.container, this.named);
    });
  }

  write(device: number, page: number): void {
    if (!isIn(this.container.mappings, page)) return;
    this.untold.add(page);
    this.logs[device % this.logs.length]?.wrote(page);
  }

  /** The VMM asks for a range, and gets the container's answer if the logs are not used, as from Containers. */
  read(range: PageRange, isServedAgain = true): number[] {
    const all = new PageBits(range);
    this.container.read(all);
    const told = this.call(() => {
      const answer = new PageBits(range);
      this.container.read(answer);
      if (this.state.head.logging !== 0) readDirty(this.state, this.container, this.named, answer);
      return pagesIn(answer);
    }, isServedAgain);
    if (told === undefined) return [];
    const known = new Set(told);
    const isTold = (page: number): boolean => known.has(page);
    for (const page of this.untold) {
      if (page < range.first || page >= range.end) continue;
      expect(isTold(page), `page ${page} was written to, and told as clean`).toBe(true);
      this.untold.delete(page);
    }
    const mapped = new Set(pagesIn(all));
    expect(told.filter((page) => !mapped.has(page))).toEqual([]);
    return told;
  }
}

const whole = (n: number): PageRange => MAPPINGS[n] ?? { first: 0, end: 0 };

describe('dirty pages of a container from logs', () => {
  it.each([4096n, 16_384n, 65_536n])(
    'tells what the devices have written, each of them, and once: pages of %d',
    (page) => {
      const world = new World([EXACT, LIKE_PDS], page);
      expect(world.start()).toBeUndefined();
      world.write(0, 5);
      world.write(1, 159);
      world.write(1, 300);
      expect(world.read(whole(0))).toEqual([5, 159]);
      expect(world.read(whole(0))).toEqual([]);
      world.write(0, 899);
      expect(world.read(whole(3))).toEqual([300, 899]);
      expect(world.read(whole(3))).toEqual([]);
    },
  );

  it('keeps what a log tells of neighbours for whoever asks for them', () => {
    const world = new World([LIKE_PDS]);
    world.start();
    for (const page of [150, 195, 210, 256]) world.write(0, page);
    expect(world.read(whole(1))).toEqual([195]);
    expect(world.read(whole(0))).toEqual([150]);
    expect(world.read(whole(2))).toEqual([210]);
    expect(world.read(whole(3))).toEqual([256]);
  });

  it('tells a mapping that was made later as the container does', () => {
    const world = new World();
    world.start();
    const added = { first: 8192, end: 8200 };
    world.container.mappings = [...MAPPINGS.slice(0, 4), added, ...MAPPINGS.slice(4)];
    world.write(0, 8193);
    expect(world.read(added)).toHaveLength(8);
    expect(world.read(added)).toHaveLength(8);
  });

  it('asks for two ranges, below and above 4 GiB, in whatever pages these are', () => {
    const world = new World([{ ...EXACT, maxRanges: 2 }], 16_384n);
    const end = 2 ** 32 / 16_384;
    world.container.mappings = [0, 4096, 8192, end, end + 4096].map((first) => ({ first, end: first + 16 }));
    expect(world.start()).toBeUndefined();
    expect(world.logs[0]?.ranges).toEqual([
      { first: 0, end: 8192 + 128 }, // ranges are whole MiB, two of them
      { first: end, end: end + 4096 + 128 },
    ]);
  });

  it('asks for fewer ranges if a driver refuses many', () => {
    const few = { ...EXACT, maxRanges: 2 };
    const world = new World([EXACT, few]);
    // far apart: no two are rounded to one
    world.container.mappings = Array.from({ length: 300 }, (_, n) => ({ first: n * 4096, end: n * 4096 + 16 }));
    world.container.mappings = [...world.container.mappings, { first: 2 ** 21, end: 2 ** 21 + 16 }];
    expect(world.start()).toBeUndefined();
    expect(world.logs.map(({ ranges }) => ranges?.length)).toEqual([2, 2]);
    world.write(1, 4096 * 299);
    expect(world.read({ first: 4096 * 299, end: 4096 * 299 + 16 })).toEqual([4096 * 299]);
  });

  it('fills the smallest gaps if there are more mappings than ranges', () => {
    const world = new World();
    world.container.mappings = Array.from({ length: 300 }, (_, n) => ({ first: n * 4096, end: n * 4096 + 16 }));
    expect(world.start()).toBeUndefined();
    expect(world.logs[0]?.ranges?.length).toBeLessThanOrEqual(256);
  });

  it.each([
    ['START', ['EOPNOTSUPP']],
    ['START of the second device', [undefined, undefined, 'EINVAL']],
    ['the first REPORT, as with a kernel that cannot tell', [undefined, 'EOPNOTSUPP']],
  ] as const)('uses no log if a driver refuses %s', (_, mishaps) => {
    const world = new World([EXACT, EXACT]);
    const [first, second] = world.logs;
    if (first === undefined || second === undefined) throw new Error('unreachable');
    // both ways to ask are refused
    const target = mishaps.length === 3 ? second : first;
    target.mishaps = mishaps.length === 3 ? ['EINVAL'] : [...mishaps];
    expect(world.start()).toMatch(/^device \d: .*(EOPNOTSUPP|EINVAL)/);
    expect(world.logs.map(({ ranges }) => ranges)).toEqual([undefined, undefined]);
    world.write(0, 5);
    expect(world.read(whole(0))).toHaveLength(160);
  });

  it.each(['EIO', 'EINVAL', 'EOPNOTSUPP'] as const)(
    'answers as the container if a log fails with %s, and starts it again',
    (errno) => {
      const world = new World([EXACT, EXACT]);
      world.start();
      world.write(0, 7);
      world.write(1, 500);
      const [, second] = world.logs;
      if (second !== undefined) second.mishaps = [errno];
      expect(world.read(whole(0))).toHaveLength(160);
      expect(world.state.head.logging).toBe(1);
      expect(world.read(whole(3))).toHaveLength(644); // what the log knew of it was lost
      world.write(0, 700);
      expect(world.read(whole(3))).toEqual([700]);
    },
  );

  it('leaves all to the container if a log can neither be read nor started again', () => {
    const world = new World();
    world.start();
    const [log] = world.logs;
    if (log !== undefined) log.mishaps = ['EIO', 'EIO', 'EIO'];
    expect(world.read(whole(0))).toHaveLength(160);
    expect(world.state.head.logging).toBe(0);
    world.write(0, 9);
    expect(world.read(whole(0))).toHaveLength(160);
    expect(log?.ranges).toBeUndefined();
  });

  it('tells all that a read has taken from a log if it was killed, whether its caller waits for a successor or not', () => {
    for (const mishap of ['killed before', 'killed after'] as const) {
      for (const isServedAgain of [true, false]) {
        const world = new World([EXACT, EXACT]);
        world.start();
        world.write(0, 7);
        world.write(1, 8);
        const [, second] = world.logs;
        if (second !== undefined) second.mishaps = [mishap];
        const told = world.read(whole(0), isServedAgain);
        expect(told).toHaveLength(isServedAgain ? 160 : 0);
        if (!isServedAgain) expect(world.read(whole(0))).toHaveLength(160);
        expect(world.read(whole(0))).toEqual([]);
      }
    }
  });

  it('never tells a page as clean that was written to, nor one as dirty that is not mapped, whatever happens', () => {
    const page = fc.oneof(...MAPPINGS.map(({ first, end }) => fc.integer({ min: first, max: end - 1 })));
    const mishap = fc.constantFrom<Mishap[]>('EIO', 'EINVAL', 'EOPNOTSUPP', 'killed before', 'killed after');
    const step = fc.oneof(
      { weight: 6, arbitrary: fc.record({ do: fc.constant('write' as const), device: fc.nat({ max: 2 }), page }) },
      {
        weight: 4,
        arbitrary: fc.record({ do: fc.constant('read' as const), n: fc.nat({ max: 4 }), again: fc.boolean() }),
      },
      {
        weight: 2,
        arbitrary: fc.record({
          do: fc.constant('mishap' as const),
          device: fc.nat({ max: 2 }),
          mishaps: fc.array(fc.option(mishap, { nil: undefined }), { maxLength: 4 }),
        }),
      },
      { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('start' as const, 'reset' as const, 'stop' as const) }) },
    );
    const habits = fc.array(fc.constantFrom(EXACT, LIKE_PDS, { ...EXACT, maxRanges: 2 }), {
      minLength: 1,
      maxLength: 3,
    });
    fc.assert(
      fc.property(habits, fc.array(step, { maxLength: 40 }), (devices, steps) => {
        const world = new World(devices);
        world.start();
        for (const taken of steps) {
          if (taken.do === 'write') world.write(taken.device, taken.page);
          else if (taken.do === 'read') world.read(whole(taken.n), taken.again);
          else if (taken.do === 'mishap') {
            const log = world.logs[taken.device % world.logs.length];
            if (log !== undefined) log.mishaps = [...taken.mishaps];
          } else if (taken.do === 'start') world.start();
          else if (taken.do === 'reset') {
            world.call(() => oweAll(world.state));
            for (const log of world.logs) log.dirty.clear(); // a driver that forgets
          } else {
            world.call(() => {
              stopLogs(world.state, world.named);
              world.state.head.started = 0;
            });
          }
        }
        for (const log of world.logs) log.mishaps = [];
        for (const [n] of MAPPINGS.entries()) world.read(whole(n));
        expect(world.untold).toEqual(new Set());
      }),
      { numRuns: 500 },
    );
  });
});
