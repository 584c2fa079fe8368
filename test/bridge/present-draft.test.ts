import { describe, expect, it, test } from 'vitest';
import type { DirtyPages } from '../../src/bridge/draft-dirty.ts';
import { DATA_OFFSET } from '../../src/v1/region.ts';
import { S2018 } from '../../src/v1/drafts/states.ts';
import { DraftAccess } from '../../src/v1/drafts/registers.ts';
import { mostPages, readDirtyPages } from '../../src/v1/drafts/dirty.ts';
import type { Draft, DraftDevice } from '../../src/v1/drafts/device.ts';
import { DraftRestore } from '../../src/v1/drafts/restore.ts';
import type { V1Device } from '../../src/v1/device.ts';
import { failure, notYet, outcome } from '../support/errno.ts';
import { draftSave, GENERATIONS, presentDraft } from '../support/drafts.ts';
import { v1Sim } from '../support/sims.ts';
import { SpyV1 } from '../support/spy-v1.ts';

const SECTION = 8192;
const device = (more = ''): SpyV1 => new SpyV1(v1Sim(`vendor-v1,size=20000,section=${SECTION},seed=3${more}`).device);
const access = (draft: DraftDevice): DraftAccess<Draft> => new DraftAccess(draft, draft.draft);
const setState = (draft: DraftDevice, value: number): string =>
  outcome(() => access(draft).write('device_state', value));

describe('presentDraft2018', () => {
  /** How each state is reached from a device that runs. */
  const ways: Readonly<Record<number, readonly number[]>> = {
    0: [2, 4, 5, 0],
    1: [],
    2: [2],
    3: [2, 3],
    4: [2, 3, 4],
    5: [2, 3, 4, 5],
    6: [6],
    7: [6, 7],
    8: [2, 8],
    9: [2, 9],
  };
  const states = Object.values(S2018);
  /** What each change does to a v1 driver that loads on 4 to 1 alone, as docs/mapping.md has it; all others are refused. */
  const changes: Readonly<Record<string, readonly string[]>> = {
    '0>1': ['0>1'],
    '0>2': [],
    '0>6': ['0>4'],
    '1>2': [],
    '1>3': ['1>3'],
    '1>4': ['1>2'],
    '1>6': ['1>4'],
    '2>1': [],
    '2>3': ['1>3'],
    '2>4': ['1>2'],
    '2>8': [],
    '2>9': [],
    '3>1': ['3>1'],
    '3>4': ['3>2'],
    '3>8': ['3>1'],
    '3>9': ['3>1'],
    '4>1': ['2>1'],
    '4>5': ['2>0'],
    '4>8': ['2>1'],
    '4>9': ['2>1'],
    '5>0': [],
    '5>1': ['0>1'],
    '5>8': ['0>1'],
    '5>9': ['0>1'],
    '6>1': ['4>1'],
    '6>7': [],
    '6>8': ['1>1'],
    '6>9': ['1>1'],
    '7>0': [],
    '7>1': ['4>1'],
    '7>8': ['1>1'],
    '7>9': ['1>1'],
    '8>0': ['1>0'],
    '8>1': [],
    '8>2': [],
    '9>0': ['1>0'],
    '9>1': [],
    '9>2': [],
  };
  const pairs = states.flatMap((from) => [...states, 10, 2 ** 32 - 1].map((to) => [from, to] as const));

  test.each(pairs)('%d to %d', (from, to) => {
    const spy = device();
    const draft = presentDraft('draft-2018', spy);
    for (const step of ways[from] ?? []) expect([step, setState(draft, step)]).toEqual([step, 'OK']);
    expect(access(draft).read('device_state')).toBe(BigInt(from));
    spy.changes.length = 0;
    const answer = setState(draft, to);
    const expected = from === to ? [] : changes[`${from}>${to}`];
    // the device has got no state here: what runs it after 4 fails, and the state stays
    const refuses = expected?.includes('4>1') === true;
    expect(answer).toBe(expected === undefined || refuses ? 'EINVAL' : 'OK');
    expect(spy.changes).toEqual(expected ?? []);
    expect(access(draft).read('device_state')).toBe(BigInt(answer === 'OK' ? to : from));
  });

  it('has nothing that is compatible, and what is pending in the kind of the state', () => {
    const draft = presentDraft('draft-2018', device());
    const registers = new DraftAccess(draft, 'draft-2018');
    const kinds = (): number[] =>
      (['pending_precopy_only', 'pending_compatible', 'pending_postcopy_only'] as const).map((kind) =>
        Math.sign(registers.count(kind)),
      );
    expect(kinds()).toEqual([0, 0, 0]);
    setState(draft, 3);
    expect(kinds()).toEqual([1, 0, 0]);
    setState(draft, 4);
    expect(kinds()).toEqual([0, 0, 1]);
    setState(draft, 5);
    expect(kinds()).toEqual([0, 0, 0]);
  });

  it.each(['data_offset', 'data_size'] as const)('shows one buffer for a pair of reads that %s begins', (first) => {
    const spy = device();
    const draft = presentDraft('draft-2018', spy);
    const registers = new DraftAccess(draft, 'draft-2018');
    const second = first === 'data_offset' ? 'data_size' : 'data_offset';
    setState(draft, 4);
    const sizes: number[] = [];
    for (let n = 0; n < 3; n += 1) {
      const [a, , b] = [registers.count(first), registers.count(first), registers.count(second)];
      sizes.push(first === 'data_size' ? a : b);
      expect(spy.consumed).toHaveLength(n); // acknowledged by what is read next
    }
    expect(new Set(sizes)).toEqual(new Set([32, 4128]));
  });

  it('is read half, and pending: nothing is taken', () => {
    const spy = device();
    const draft = presentDraft('draft-2018', spy);
    const registers = new DraftAccess(draft, 'draft-2018');
    setState(draft, 3);
    registers.count('data_size');
    const pending = registers.count('pending_precopy_only');
    expect([registers.count('pending_precopy_only'), spy.consumed.length]).toEqual([pending, 0]);
    setState(draft, 4);
    expect([registers.count('pending_postcopy_only'), registers.count('data_size'), spy.consumed.length]).toEqual([
      pending,
      32,
      0,
    ]);
  });
});

describe('presentDraft2019', () => {
  it.each([
    ['3', '1>3'],
    ['3 2', '1>3 3>2'],
    ['3 2 0', '1>3 3>2 2>0'],
    ['3 2 0 1', '1>3 3>2 2>0 0>1'],
    ['2', '1>2'],
    ['0', '1>4'],
    ['0 0', '1>4'],
    ['3 1', '1>3 3>1'],
    ['2 0 0', '1>2 2>0 0>4'],
    ['1 1', ''],
  ])('writes of %s are %s for the v1 driver', (values, changes) => {
    const spy = device();
    const draft = presentDraft('draft-2019', spy);
    const answers = values.split(' ').map((value) => setState(draft, Number(value)));
    expect(new Set(answers)).toEqual(new Set(['OK']));
    expect(spy.changes.join(' ')).toBe(changes);
  });

  it.each(['4', '5', '8', '3 0', '3 2 3', '0 2', '0 3'])(
    'the last of %s is refused, and nothing reaches the driver',
    (values) => {
      const spy = device();
      const draft = presentDraft('draft-2019', spy);
      const steps = values.split(' ').map(Number);
      for (const step of steps.slice(0, -1)) setState(draft, step);
      spy.changes.length = 0;
      expect([setState(draft, steps.at(-1) ?? 0), spy.changes]).toEqual(['EINVAL', []]);
    },
  );

  it('fetches by a read of pending_bytes, again and again the same until data_offset is read', () => {
    const spy = device();
    const draft = presentDraft('draft-2019', spy);
    const registers = new DraftAccess(draft, 'draft-2019');
    setState(draft, 3);
    expect([registers.count('pending_bytes'), registers.count('pending_bytes'), spy.consumed.length]).toEqual([
      32, 32, 0,
    ]);
    registers.count('data_offset');
    registers.count('data_offset');
    expect([registers.count('pending_bytes'), spy.consumed.length]).toEqual([4128, 1]);
  });
});

describe.each(GENERATIONS)('the pages that %s says are dirty', (draft) => {
  const PAGE = 4096;
  const most = mostPages(SECTION);

  function dirtied(
    pages: readonly number[],
    range: { first: number; pages: number },
    log?: Partial<DirtyPages>,
  ): number[] {
    const calls: string[] = [];
    const dirty: DirtyPages = {
      begin: () => calls.push('begin'),
      end: () => calls.push('end'),
      readAndClear({ iova, length }, { pageSize, bits }) {
        expect([pageSize, iova % pageSize, length % pageSize]).toEqual([4096n, 0n, 0n]);
        for (const page of pages) {
          const at = page - Number(iova / pageSize);
          if (at >= 0 && at < Number(length / pageSize)) bits[at >> 3] = (bits[at >> 3] ?? 0) | (1 << (at & 7));
        }
      },
      ...log,
    };
    const device2 = presentDraft(draft, device(), { dirty, dataSection: new Uint8Array(SECTION) });
    setState(device2, 3);
    const found: number[] = [];
    readDirtyPages(device2, { ...range, pageSize: PAGE }, (first, count, bitmap) => {
      for (let n = 0; n < count; n += 1) if (((bitmap[n >> 3] ?? 0) >> (n & 7)) & 1) found.push(first + n);
    });
    return found;
  }

  it('are those of the log, over pieces that have none', () => {
    const pages = [100, 163, 164, 100 + 2 * most + 7, 100 + 3 * most - 1];
    expect(dirtied(pages, { first: 100, pages: 3 * most + 5 })).toEqual(pages);
    expect(dirtied([], { first: 0, pages: 3 * most + 5 })).toEqual([]);
    expect(dirtied([99, 200], { first: 100, pages: 100 })).toEqual([]);
  });

  it('are all of them, and no other, if the log fails', () => {
    const fails = (): never => {
      throw failure('EIO');
    };
    const all = Array.from({ length: 3 * most + 5 }, (_, n) => 7 + n);
    expect(dirtied([], { first: 7, pages: all.length }, { readAndClear: fails })).toEqual(all);
    expect(dirtied([], { first: 7, pages: all.length }, { begin: fails })).toEqual(all);
  });

  it('are all of them if there is no log, and none outside of a migration', () => {
    const presented = presentDraft(draft, device());
    const count = (): number => {
      let sum = 0;
      readDirtyPages(presented, { first: 0, pages: 1000, pageSize: PAGE }, (_, pages) => (sum += pages));
      return sum;
    };
    expect(count()).toBe(0);
    setState(presented, 3);
    expect(count()).toBe(1000);
    setState(presented, 1);
    expect(count()).toBe(0);
  });

  it.each([
    [2n ** 64n - 1n, 1n],
    [0n, 2n ** 64n - 1n],
    [2n ** 63n, 2n ** 60n],
  ])('are not those of a range that no memory has: %d, %d pages', (start, total) => {
    const presented = presentDraft(draft, device());
    const registers = access(presented);
    setState(presented, 3);
    const names =
      draft === 'draft-2018'
        ? ['dirty_pfns_start_addr', 'dirty_pfns_total', 'dirty_pfns_copied']
        : ['start_pfn', 'total_pfns', 'copied_pfns'];
    const [first, count, copied] = names as ['start_pfn', 'total_pfns', 'copied_pfns'];
    registers.write(first, start);
    registers.write(count, total);
    expect(outcome(() => registers.read(copied))).toBe('EINVAL');
  });

  it('do not cost a buffer that was fetched', () => {
    const presented = presentDraft(draft, device());
    const registers = access(presented);
    setState(presented, 3);
    const first = draft === 'draft-2018' ? 'data_size' : 'pending_bytes';
    registers.read(first);
    readDirtyPages(presented, { first: 0, pages: 4096, pageSize: PAGE }, () => {});
    const offset = registers.count('data_offset') - presented.dataSection.offset;
    expect(Buffer.from(presented.mapped.subarray(offset, offset + 4)).toString()).toBe('VDV1');
  });
});

describe.each(GENERATIONS)('a VMM of %s that writes what it should not', (draft) => {
  it.each([
    ['data_size', 2n ** 64n - 1n],
    ['data_size', BigInt(SECTION) + 1n],
    ['data_offset', 0n],
    ['data_offset', 2n ** 63n],
    ['data_offset', BigInt(DATA_OFFSET + SECTION)],
  ] as const)('%s %d is refused, and nothing reaches the driver', (register, value) => {
    const spy = device();
    const presented = presentDraft(draft, spy);
    const registers = access(presented);
    setState(presented, draft === 'draft-2018' ? 6 : 0);
    const answer = outcome(() => {
      registers.write('data_offset', register === 'data_offset' ? value : BigInt(DATA_OFFSET));
      registers.write('data_size', register === 'data_size' ? value : 1n);
    });
    expect([answer, spy.loaded]).toEqual(['EINVAL', []]);
  });

  it('loads nothing outside of RESUMING', () => {
    const spy = device();
    const registers = access(presentDraft(draft, spy));
    expect([
      outcome(() => registers.write('data_offset', DATA_OFFSET)),
      outcome(() => registers.write('data_size', 1)),
    ]).toEqual(['EINVAL', 'EINVAL']);
    expect(spy.loaded).toEqual([]);
  });
});

describe.each(GENERATIONS)('a buffer of which a read has failed, in %s', (draft) => {
  const SIZE = 20_000;

  /** hisi-v1, which counts each byte that is read: what would be read twice ends no save. `refuse` is asked before each read of data. */
  function bed(refuse: () => void): {
    source: DraftDevice;
    bar: Uint8Array;
    destination: DraftDevice;
    loaded: Uint8Array;
  } {
    const text = `hisi-v1,size=${SIZE}`;
    const { device: driver, bar } = v1Sim(`${text},seed=5`);
    const failing: V1Device = {
      regionSize: driver.regionSize,
      dataSection: driver.dataSection,
      mapped: undefined,
      read(offset, into) {
        if (offset >= driver.dataSection.offset) refuse();
        driver.read(offset, into);
      },
      write: (offset, from) => driver.write(offset, from),
      reset: () => driver.reset(),
    };
    const { device: other, bar: loaded } = v1Sim(text);
    return { source: presentDraft(draft, failing), bar, destination: presentDraft(draft, other), loaded };
  }

  /** What a read of data does that is made in pieces: the n-th of all fails once, with that. */
  function failingAt(n: number, error: () => Error): () => void {
    let reads = 0;
    return () => {
      reads += 1;
      if (reads === n) throw error();
    };
  }

  const pieces = [1, 2, 3, 4, 5, 6, 7];

  it.each(pieces)('goes on where it was, if the driver needs time at piece %d', (n) => {
    const { source, bar, destination, loaded } = bed(failingAt(n, notYet));
    let waits = 0;
    let buffers = 0;
    const restore = new DraftRestore(destination);
    restore.setup();
    const save = draftSave(
      source,
      (buffer) => {
        expect((buffers += 1)).toBeLessThan(10); // a driver that has counted wrong never ends
        restore.load(buffer.slice());
      },
      () => (waits += 1),
    );
    save.setup();
    while (save.pending() > 0) save.iterate();
    save.complete();
    restore.complete();
    expect(waits).toBe(1);
    expect(loaded).toBeBytes(bar);
  });

  it.each(pieces)('goes on where it was, if piece %d is an error and the VMM asks again', (n) => {
    const { source, bar, destination, loaded } = bed(failingAt(n, () => failure('EIO')));
    const registers = access(source);
    const restore = new DraftRestore(destination);
    restore.setup();
    const [pending, save] = draft === 'draft-2018' ? ['pending_postcopy_only', 4] : ['pending_bytes', 2];
    /** Reads until there is an answer. */
    const read = (register: string): number => {
      const answer: { value?: number } = {};
      const ask = (): unknown => (answer.value = registers.count(register as 'data_offset'));
      const outcomes = [outcome(ask), ...(answer.value === undefined ? [outcome(ask)] : [])];
      expect(outcomes.at(-1)).toBe('OK');
      return answer.value ?? Number.NaN;
    };
    if (n === 1) {
      // in pre-copy, the buffer is had before it changes to stop-and-copy
      setState(source, 3);
      const first = draft === 'draft-2018' ? 'data_size' : 'pending_bytes';
      expect(outcome(() => registers.count(first))).toBe('EIO');
    }
    expect(setState(source, save)).toBe('OK');
    for (let left = read(pending), rounds = 0; left > 0; left = read(pending), rounds += 1) {
      expect(rounds).toBeLessThan(10);
      const at = read('data_offset') - source.dataSection.offset;
      const size = draft === 'draft-2018' ? read('data_size') : left;
      restore.load(source.mapped.slice(at, at + size));
    }
    restore.complete();
    expect(loaded).toBeBytes(bar);
  });
});

describe.each(GENERATIONS)('a reset behind the back of a VMM of %s', (draft) => {
  it('is an error that it sees, and ends with what it does then', () => {
    const spy = device();
    const presented = presentDraft(draft, spy);
    const registers = access(presented);
    const save = draft === 'draft-2018' ? 4 : 2;
    setState(presented, 3);
    registers.count('data_offset');
    spy.device.reset();
    expect(outcome(() => registers.read('data_offset'))).toBe('EIO');
    expect([setState(presented, save), setState(presented, save)]).toEqual(['EIO', 'OK']);
  });

  it('leaves a device that may fail and run', () => {
    const spy = device();
    const presented = presentDraft(draft, spy);
    setState(presented, 3);
    spy.device.reset();
    if (draft === 'draft-2018') expect([setState(presented, 8), setState(presented, 2)]).toEqual(['OK', 'OK']);
    expect([setState(presented, 1), setState(presented, 3)]).toEqual(['OK', 'OK']);
  });
});

test.each([65, 64, DATA_OFFSET - 1])(
  'a buffer that is written at %d, behind its size, is refused, and the device does not run',
  (at) => {
    const spy = device();
    const presented = presentDraft('draft-2019', spy);
    const registers = new DraftAccess(presented, 'draft-2019');
    setState(presented, 0);
    registers.write('data_offset', DATA_OFFSET);
    registers.write('data_size', 0);
    expect(outcome(() => presented.write(at, new Uint8Array(100)))).toBe('EINVAL');
    expect([setState(presented, 1), setState(presented, 0), setState(presented, 1)]).toEqual([
      'EINVAL',
      'OK',
      'EINVAL',
    ]);
    expect(outcome(() => registers.write('data_size', 32))).toBe('EINVAL');
    presented.reset();
    expect([setState(presented, 1), setState(presented, 3)]).toEqual(['OK', 'OK']);
  },
);

test('a state that was refused stays refused', () => {
  const spy = device();
  const presented = presentDraft('draft-2018', spy);
  const registers = new DraftAccess(presented, 'draft-2018');
  setState(presented, 6);
  presented.mapped.fill(0xaa);
  registers.write('data_offset', DATA_OFFSET);
  expect(outcome(() => registers.write('data_size', 64))).toBe('EINVAL');
  expect([setState(presented, 7), setState(presented, 1), setState(presented, 9), setState(presented, 1)]).toEqual([
    'EINVAL',
    'EINVAL',
    'OK',
    'OK',
  ]);
});
