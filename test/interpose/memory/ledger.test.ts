import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Ledger, Ledgers, ledgerSize, LEDGERS_SIZE } from '../../../src/interpose/memory/ledger.ts';
import { noise } from '../../support/bytes.ts';
import { crashes } from '../../support/crashes.ts';

const SIZES = [100, 1, 3000];
const id = (n: number): Uint32Array => new Uint32Array([n, n + 1000]);

/** The ledgers of a run, over memory that outlives it. */
function open(memory: Uint8Array): { all: Ledgers; each: readonly Ledger[] } {
  const all = new Ledgers(memory.subarray(0, LEDGERS_SIZE));
  let at = Math.ceil(LEDGERS_SIZE / 8) * 8;
  const each = SIZES.map((size, index) => {
    const ledger = new Ledger(all, index, memory.subarray(at, at + ledgerSize(size)), size);
    at += ledgerSize(size);
    return ledger;
  });
  return { all, each };
}

const newMemory = (): Uint8Array =>
  new Uint8Array(Math.ceil(LEDGERS_SIZE / 8) * 8 + SIZES.reduce((sum, size) => sum + ledgerSize(size), 0));

/** What a successor finds: whether a ledger was ever committed, its arena, and the call and answer of them all. */
function found(memory: Uint8Array): { arenas: string[]; fresh: boolean[]; answer: [number, number]; call: number } {
  const { all, each } = open(memory);
  const { value, error } = all.answer;
  const call = Array.from({ length: 50 }, (_, n) => n).findIndex((n) => n > 0 && all.isOf(id(n)));
  return {
    arenas: each.map(({ arena }) => Buffer.from(arena).toString('hex')),
    fresh: each.map(({ isFresh }) => isFresh),
    answer: [value, error],
    call,
  };
}

/** Changes some ledgers, and commits them as the result of a call. */
function serve({ all, each }: ReturnType<typeof open>, touched: readonly number[], n: number): void {
  const ledgers = each.filter(({ index }) => touched.includes(index));
  for (const { arena, index } of ledgers) arena.set(noise(arena.length, 100 * n + index));
  all.commit(ledgers, id(n), n * 10, -n);
}

describe('Ledgers', () => {
  it('begin fresh, and keep what was committed and nothing else', () => {
    const memory = newMemory();
    const run = open(memory);
    expect(found(memory).fresh).toEqual([true, true, true]);
    run.each[0]?.arena.set(noise(100));
    expect(found(memory).fresh).toEqual([true, true, true]);
    run.all.commit([run.each[0] as Ledger], id(7), 123, -22);
    run.each[0]?.arena.fill(9);
    const { all, each } = open(memory);
    expect(each.map(({ isFresh }) => isFresh)).toEqual([false, true, true]);
    expect(each[0]?.arena).toBeBytes(noise(100));
    expect(all.answer).toMatchObject({ value: 123, error: -22 });
    expect([id(7), id(8), new Uint32Array([7, 1])].map((call) => all.isOf(call))).toEqual([true, false, false]);
    run.each[0]?.revert();
    expect(run.each[0]?.arena).toBeBytes(noise(100));
  });

  it('are not the result of any call if they were committed for none', () => {
    const memory = newMemory();
    const { all, each } = open(memory);
    all.commit(each, id(7), 1);
    all.commit(each.slice(1));
    expect(found(memory)).toMatchObject({ call: -1, fresh: [false, false, false] });
  });

  it('show the state of all before a commit, or of all after it, wherever it was cut off', () => {
    const memory = newMemory();
    const run = open(memory);
    const turns = [[0], [0, 1], [2], [0, 1, 2], [1, 2], [0, 1, 2], [0, 1, 2], [1]];
    for (const [n, touched] of turns.entries()) {
      const before = found(memory);
      const images = crashes(memory, () => serve(run, touched, n + 1)).map(found);
      const after = found(memory);
      expect(after).toMatchObject({ call: n + 1, answer: [(n + 1) * 10, -(n + 1)] });
      for (const index of touched) {
        expect(after.arenas[index]).toBe(Buffer.from(noise(SIZES[index] ?? 0, 100 * (n + 1) + index)).toString('hex'));
      }
      const turn = images.findIndex(({ call }) => call === n + 1);
      expect(turn).toBeGreaterThan(touched.length);
      for (const [k, image] of images.entries()) expect(image).toEqual(k < turn ? before : after);
    }
  });

  it('go on from where a predecessor was cut off', () => {
    const turn = fc.record({ touched: fc.subarray([0, 1, 2]), cut: fc.nat(40) });
    fc.assert(
      fc.property(fc.array(turn, { minLength: 1, maxLength: 12 }), (turns) => {
        let memory = newMemory();
        for (const [n, { touched, cut }] of turns.entries()) {
          const before = found(memory);
          const run = open(memory);
          const images = crashes(memory, () => serve(run, touched, n + 1));
          memory = images[cut % images.length] ?? memory;
          expect([before, found(images.at(-1) ?? memory)]).toContainEqual(found(memory));
        }
      }),
      { numRuns: 50 },
    );
  });
});
