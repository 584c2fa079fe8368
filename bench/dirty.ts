import { readDirty, startLogs } from '../src/interpose/bridged/dirty-pages.ts';
import { DIRTY_STATE_SIZE, DirtyState } from '../src/interpose/memory/dirty-state.ts';
import { Ledger, Ledgers, LEDGERS_SIZE, ledgerSize } from '../src/interpose/memory/ledger.ts';
import { addressOf } from '../src/sys/libc.ts';
import { readProcessMemory, writeProcessMemory } from '../src/sys/process-memory.ts';
import type { DirtyContainer } from '../src/vfio/dirty-container.ts';
import type { DmaLog } from '../src/vfio/dma-log.ts';
import { PageBits } from '../src/vfio/page-bits.ts';
import type { Benchmark } from './benchmark.ts';
import { compile, numberOf, output } from './programs.ts';

/** 64 GiB: a bitmap of 2 MiB. */
const PAGES = 2 ** 24;
const COUNT = 200;
/** 640 KiB: what QEMU asks for between the rest, as often as for all of it, thousands of times in a migration that does not converge. */
const FEW = 160;
const OFTEN = 20_000;

/** A container that has all of a range mapped, and a log that has a few of its pages, neither of which takes time but to say so. */
function world(
  first: number,
  pages: number,
): { container: DirtyContainer; log: DmaLog; range: { first: number; end: number } } {
  const range = { first, end: first + pages };
  const all = new Uint8Array(PageBits.sizeOf(range)).fill(255);
  const some = new Uint8Array(all.length);
  const words = new BigUint64Array(some.buffer);
  for (let n = 0; n < words.length; n += 97) words[n] = 0x8000_0000_0000_0001n;
  return {
    range,
    container: { pageSize: 4096n, start: () => {}, read: ({ bytes }) => bytes.set(all), mapped: () => [range] },
    log: {
      start: (_ranges, size) => size,
      stop: () => {},
      readAndClear: (_range, { bits }) => bits.set(some.subarray(0, bits.length)),
    },
  };
}

/** Nanoseconds for a question of a VMM that is this process; what an ioctl and its trap cost comes on top of it on both sides. */
function translated(first: number, pages = PAGES, count = COUNT): number {
  const { container, log, range } = world(first, pages);
  const ledgers = new Ledgers(new Uint8Array(LEDGERS_SIZE));
  const ledger = new Ledger(ledgers, 0, new Uint8Array(ledgerSize(DIRTY_STATE_SIZE)), DIRTY_STATE_SIZE);
  const state = new DirtyState(ledger);
  const logs = [{ name: 'device', log }];
  const failure = startLogs(state, container, logs);
  if (failure !== undefined) throw new Error(failure);
  const user = new Uint8Array(PageBits.sizeOf(range));
  const answer = new PageBits(range);
  const ask = (): void => {
    readProcessMemory(process.pid, addressOf(user), answer.bytes);
    container.read(answer);
    const unread = readDirty(state, container, logs, answer);
    if (unread !== undefined) throw new Error(unread);
    writeProcessMemory(process.pid, addressOf(user), answer.bytes);
    ledgers.commit([ledger]);
  };
  for (let n = 0; n < count / 10; n += 1) ask();
  const start = process.hrtime.bigint();
  for (let n = 0; n < count; n += 1) ask();
  return Number(process.hrtime.bigint() - start) / count;
}

export const dirty: Benchmark = {
  name: 'dirty',
  about: 'the dirty pages of 64 GiB from a container and a log, against a C loop that moves and merges as much',
  rounds: 10,
  rows: [
    {
      key: 'aligned',
      title: 'dirty: a bitmap of 64 GiB',
      unit: 'ns',
      compare: 'ratio',
      target: { bound: 'at most', value: 1.5 },
    },
    { key: 'shifted', title: "dirty: the same, not at a word's beginning", unit: 'ns', compare: 'ratio' },
    { key: 'few', title: 'dirty: a bitmap of 640 KiB', unit: 'ns', compare: 'difference' },
  ],
  prepare() {
    const merge = compile('dirty-merge');
    return {
      ours: () => ({ aligned: translated(0), shifted: translated(240), few: translated(0, FEW, OFTEN) }),
      baseline() {
        const merged = (count: number, pages: number): number =>
          numberOf(output('dirty-merge', [merge, String(count), String(pages)]), 'ns');
        const ns = merged(COUNT, PAGES);
        return { aligned: ns, shifted: ns, few: merged(OFTEN, FEW) };
      },
    };
  },
};
