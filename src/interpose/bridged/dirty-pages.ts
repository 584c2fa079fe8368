import { ShimError } from '../../error.ts';
import type { DmaLog, IovaRange } from '../../vfio/dma-log.ts';
import type { DirtyContainer } from '../../vfio/dirty-container.ts';
import { PageBits, PageBitsRoom } from '../../vfio/page-bits.ts';
import { coalesced, roundedOut, union, within, without, type PageRange, type PageSet } from '../../vfio/page-ranges.ts';
import { MAX_RANGES, type DirtyState } from '../memory/dirty-state.ts';
import { messageOf } from '../run/log.ts';

/*
 * A v1 VMM asks the container which pages devices have written to, and a container of the kernel with real hardware calls all of its
 * pages dirty whenever it is asked: a live migration never ends. Drivers of v2 know better. So a page is told as dirty if the container
 * says so, which leaves out what is not mapped, and
 *
 *   - a device's log has it,
 *   - or the devices' logs do not cover it,
 *   - or it is owed: something that was read of a log was or may have been lost.
 *
 * Whatever cannot be done leaves the container's answer, which is never wrong, only large. QEMU 7.2 and before take pages for clean
 * if the question fails, so no failure of ours gets there.
 */

/** A device's log, and whose it is. */
export interface NamedLog {
  readonly name: string;
  readonly log: DmaLog;
}

/** Bytes that a driver's ranges begin and end at multiples of: 64 of the pages of which one u64 tells (pds reads its log by these). */
const ROUNDED = 2 * 1024 * 1024;
const PER_WORD = 64;
/** A log is read by pieces of so many pages at most: 64 GiB, a bitmap of 2 MiB. */
const WINDOW = 2 ** 24;
/** Where 32-bit addresses end: QEMU 8 and later have their devices log by one range below and one above. */
const LOW_END = 2 ** 32;

/** All pages that there can be. */
const EVERYTHING: PageRange = { first: 0, end: 2 ** 52 };

/**
 * The VMM has started the container's log: has the devices log all that is mapped. Returns why that is not possible. If it had done so
 * before, a log that begins only now does not know all that is to be told.
 */
export function startLogs(state: DirtyState, container: DirtyContainer, logs: readonly NamedLog[]): string | undefined {
  const { head } = state;
  const isStarted = head.started !== 0;
  const before = state.ranges.get();
  const failure = beginLogs(state, container, logs);
  head.started = 1;
  state.owed.set([]);
  if (isStarted) owe(state, before, state.ranges.get());
  return failure;
}

/** Begins to have the devices log all that is mapped, or begins anew, when all is lost that they have logged before. */
function beginLogs(state: DirtyState, container: DirtyContainer, logs: readonly NamedLog[]): string | undefined {
  const { head } = state;
  head.logging = 0;
  begin(state, [EVERYTHING]); // a log that is stopped forgets all
  head.read = state.reading.read;
  let why = 'nothing is mapped';
  const { pageSize } = container;
  const mapped = roundedOut(container.mapped(), ROUNDED / Number(pageSize));
  for (const ranges of rangesToTry(mapped, LOW_END / Number(pageSize))) {
    const sizes: bigint[] = [];
    try {
      for (const { log } of logs) {
        stopLog(log); // of a supervisor that was killed, or a VMM that has gone
        sizes.push(
          log.start(
            ranges.map((range) => iovaRange(range, pageSize)),
            pageSize,
          ),
        );
      }
      head.grid = PER_WORD * Math.max(1, ...sizes.map((size) => Number(size / pageSize)));
      for (const { log } of logs) readFirst(log, ranges, head.grid, pageSize);
      state.ranges.set(ranges);
      head.logging = 1;
      return undefined;
    } catch (error) {
      if (!(error instanceof ShimError)) throw error;
      why = `${logs[Math.min(sizes.length, logs.length - 1)]?.name ?? ''}: ${messageOf(error)}`;
      for (const { log } of logs) stopLog(log);
    }
  }
  return why;
}

/** The VMM has stopped the container's log, or the devices can no longer log. */
export function stopLogs(state: DirtyState, logs: readonly NamedLog[]): void {
  state.head.logging = 0;
  for (const { log } of logs) stopLog(log);
}

function stopLog(log: DmaLog): void {
  try {
    log.stop();
  } catch (error) {
    if (!(error instanceof ShimError)) throw error; // it was not started, or is lost
  }
}

/** The ranges that devices are asked to log by: all that is mapped, and if that is refused, two that have it all. */
function rangesToTry(mapped: PageSet, lowEnd: number): PageSet[] {
  if (mapped.length === 0) return [];
  const halves = [
    { first: 0, end: lowEnd },
    { first: lowEnd, end: Infinity },
  ].flatMap((half) => coalesced(within(mapped, half), 1));
  const all = coalesced(mapped, MAX_RANGES);
  return all.length <= halves.length ? [all] : [all, halves];
}

/** Whether a log can be read shows only while it goes on: a kernel may start it and then not know how to tell. */
function readFirst(log: DmaLog, ranges: PageSet, grid: number, pageSize: bigint): void {
  const [range] = ranges;
  if (range === undefined) return;
  const piece = { first: range.first, end: Math.min(range.end, range.first + grid) };
  report(log, new PageBits(piece), pageSize);
}

/**
 * Leaves in `answer`, which is the container's own, what the devices have logged. A log that cannot be read, for which it returns the
 * reason, leaves the container's answer as it is; from then on the logs are started again, or not used any more.
 */
export function readDirty(
  state: DirtyState,
  container: DirtyContainer,
  logs: readonly NamedLog[],
  answer: PageBits,
): string | undefined {
  const asked = answer.range;
  const pieces = piecesOf(state, asked);
  begin(state, pieces);
  const owed = state.owed.get();
  const surplus: PageRange[] = [];
  let failure: string | undefined;
  for (const piece of pieces) {
    const log = told.bitsOf(piece);
    log.clear();
    failure = readLogs(logs, log, container.pageSize);
    if (failure !== undefined) break;
    for (const pages of without(within([piece], asked), owed)) answer.and(log, pages);
    // a log is read by whole words: what is none of the caller's business yet is kept for whoever asks
    for (const pages of without([piece], [asked])) surplus.push(...log.setIn(pages));
  }
  owe(state, without(state.owed.get(), [asked]), surplus);
  if (failure !== undefined) restart(state, container, logs);
  state.head.read = state.reading.read;
  return failure;
}

/** Notes at once what is lost if this process is killed: a log forgets what it has told. */
function begin(state: DirtyState, pieces: PageSet): void {
  const { reading, head } = state;
  oweUnfinished(state);
  const first = pieces[0]?.first ?? 0;
  const end = pieces.at(-1)?.end ?? 0;
  const isUnfinished = reading.read !== head.read;
  reading.first = isUnfinished ? Math.min(reading.first, first) : first;
  reading.end = isUnfinished ? Math.max(reading.end, end) : end;
  reading.read = (head.read + 1) % 2 ** 32;
}

/** What a read that came to nothing had taken from the logs is owed. */
function oweUnfinished(state: DirtyState): void {
  const { reading, head } = state;
  if (reading.read !== head.read) owe(state, state.owed.get(), [reading]);
}

/** All that devices log is to be told once more. */
export function oweAll(state: DirtyState): void {
  owe(state, state.ranges.get());
}

function owe(state: DirtyState, ...pages: (readonly PageRange[])[]): void {
  state.owed.set(coalesced(union(...pages), state.owed.limit));
}

function restart(state: DirtyState, container: DirtyContainer, logs: readonly NamedLog[]): void {
  const before = state.ranges.get();
  if (beginLogs(state, container, logs) !== undefined) return;
  owe(state, state.owed.get(), before, state.ranges.get());
}

/** The pieces by which the logs are read for some pages: by whole words of their ranges, as far as these go. */
function piecesOf(state: DirtyState, asked: PageRange): PageSet {
  const { grid } = state.head;
  const step = grid * Math.max(1, Math.floor(WINDOW / grid));
  return state.ranges.get().flatMap((range) => {
    const [part] = within([range], asked);
    if (part === undefined) return [];
    const pieces: PageRange[] = [];
    const end = Math.min(range.end, range.first + Math.ceil((part.end - range.first) / grid) * grid);
    let first = range.first + Math.floor((part.first - range.first) / grid) * grid;
    for (; first < end; first += step) pieces.push({ first, end: Math.min(end, first + step) });
    return pieces;
  });
}

/** Returns why they cannot be read; some may have been. */
function readLogs(logs: readonly NamedLog[], into: PageBits, pageSize: bigint): string | undefined {
  for (const { name, log } of logs) {
    try {
      report(log, into, pageSize);
    } catch (error) {
      if (!(error instanceof ShimError)) throw error;
      return `${name}: ${messageOf(error)}`;
    }
  }
  return undefined;
}

function report(log: DmaLog, { range, bytes }: PageBits, pageSize: bigint): void {
  log.readAndClear(iovaRange(range, pageSize), { pageSize, bits: bytes });
}

function iovaRange({ first, end }: PageRange, pageSize: bigint): IovaRange {
  return { iova: BigInt(first) * pageSize, length: BigInt(end - first) * pageSize };
}

const told = new PageBitsRoom();
