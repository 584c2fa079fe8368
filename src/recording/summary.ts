import type { Direction } from '../device/device-event.ts';
import type { AccessLine } from './format.ts';
import type { RecordingEntry } from './reader.ts';

/** A loop that moves data, with all of its accesses. */
export interface LoopSummary {
  readonly kind: 'loop';
  readonly device: string;
  /** When the first began, in microseconds of `CLOCK_MONOTONIC`. */
  readonly begin: number;
  /** From the begin of the first to the end of the last. */
  readonly us: number;
  readonly accesses: number;
  readonly buffers: number;
  /** Migration data in all of them. */
  readonly bytes: number;
  readonly direction: Direction | undefined;
}

/** The same entries, with each loop that moves data of one device in one: what fails, or is anything else, is an entry as before. */
export function* inSummary(
  entries: Iterable<RecordingEntry>,
): Generator<RecordingEntry | LoopSummary, void, undefined> {
  let loop: AccessLine[] = [];
  const ended = (): (RecordingEntry | LoopSummary)[] => {
    const found = loop.length < SHORTEST ? loop : [summaryOf(loop)];
    loop = [];
    return found;
  };
  for (const entry of entries) {
    const isStep = entry.kind === 'access' && isLoopStep(entry);
    if (!isStep || loop[0]?.device !== entry.device) yield* ended();
    if (isStep) loop.push(entry);
    else yield entry;
  }
  yield* ended();
}

/** Fewer accesses are shown as they are. */
const SHORTEST = 4;
const MOVES: ReadonlySet<string> = new Set(['pread64', 'pwrite64', 'VFIO_USER_REGION_READ', 'VFIO_USER_REGION_WRITE']);
const LOOP_REGISTERS: ReadonlySet<string> = new Set(['pending_bytes', 'data_offset', 'data_size']);

function isLoopStep({ call, errno, device }: AccessLine): boolean {
  if (errno !== undefined || device === undefined) return false;
  if (call.protocol === 'vfio') return MOVES.has(call.call === 'message' ? (call.request ?? '') : call.call);
  return (
    call.call === 'data' ||
    call.call === 'precopy-info' ||
    (call.call === 'register' && LOOP_REGISTERS.has(call.register))
  );
}

function summaryOf(loop: readonly AccessLine[]): LoopSummary {
  const moved = loop.flatMap((access) => access.moved ?? []);
  const first = loop[0];
  const last = loop.at(-1);
  const begin = first?.begin ?? 0;
  return {
    kind: 'loop',
    device: first?.device ?? '',
    begin,
    us: Math.max(0, (last?.begin ?? 0) + (last?.us ?? 0) - begin),
    accesses: loop.length,
    buffers: moved.length,
    bytes: moved.reduce((sum, { bytes }) => sum + bytes, 0),
    direction: moved[0]?.direction,
  };
}
