import type { V1Device } from '../../src/v1/device.ts';
import { V1, type V1StateName } from '../../src/v1/states.ts';
import { failure } from '../support/errno.ts';
import { setState, stateOf, type V1Mutation } from './v1-mutant.ts';

export interface V1Mutant {
  readonly make: () => V1Mutation;
  /** The data section is not mapped. */
  readonly isUnmapped?: true;
  readonly also?: readonly string[];
}

const [STATE, RESERVED, PENDING, OFFSET, SIZE] = [0, 4, 8, 16, 24];
const GARBAGE = 0xa5;
const fail = (errno: 'EIO' | 'EINVAL' = 'EIO'): never => {
  throw failure(errno);
};
const inId = (name: string): string => name.toLowerCase().replaceAll('_', '-');

const LOADS = ['v1-load', 'v1-pre-copy-load', 'v1-stop-copy-direct', 'v1-refused-reset'];
const value = (bytes: Uint8Array): number => new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
const count = (bytes: Uint8Array): bigint => new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
const put = (bytes: Uint8Array, to: bigint): void =>
  new DataView(bytes.buffer, bytes.byteOffset).setBigUint64(0, to, true);

/** A read of a 64-bit register, of which the mutant says something else. */
function showing(offset: number, other: (true_: bigint, next: V1Device) => bigint): V1Mutation {
  return {
    read(next, at, into) {
      next.read(at, into);
      if (at === offset && into.length === 8) put(into, other(count(into), next));
    },
  };
}

const isSaving = (next: V1Device): boolean => [V1.PRE_COPY, V1.STOP_COPY].includes(stateOf(next) as 2 | 3);

function arc(from: V1StateName, to: V1StateName, also: readonly string[] = []): [string, V1Mutant] {
  const write: V1Mutation['write'] = (next, offset, bytes) => {
    if (offset === STATE && value(bytes) === V1[to] && stateOf(next) === V1[from]) fail();
    next.write(offset, bytes);
  };
  return [`v1-arc-${inId(from)}-${inId(to)}`, { make: () => ({ write }), also }];
}

function takes(number: number): [string, V1Mutant] {
  const write: V1Mutation['write'] = (next, offset, bytes) => {
    if (offset !== STATE || value(bytes) !== number) next.write(offset, bytes);
  };
  return [`v1-invalid-${number}`, { make: () => ({ write }) }];
}

function reset(name: Exclude<V1StateName, 'ERROR'>): [string, V1Mutant] {
  const mutation: V1Mutation = {
    reset(next) {
      if (stateOf(next) !== V1[name]) next.reset();
      else if (name === 'RUNNING') setState(next, V1.STOP);
    },
  };
  return [`v1-reset-${inId(name)}`, { make: () => mutation, also: name === 'RESUMING' ? ['v1-refused-reset'] : [] }];
}

function anyWidth(id: string, isMeant: (offset: number, length: number) => boolean): [string, V1Mutant] {
  const read: V1Mutation['read'] = (next, offset, into) => {
    if (!isMeant(offset, into.length)) next.read(offset, into);
  };
  return [id, { make: () => ({ read }) }];
}

function width(register: string, offset: number, native: number): [string, V1Mutant] {
  return anyWidth(`v1-width-${register}`, (at, length) => at === offset && length !== native);
}

/** A register that takes a write, and shows it. */
function writable(offset: number): V1Mutation {
  let wasWritten = false;
  return {
    write(next, at, from) {
      if (at === offset) wasWritten = true;
      else next.write(at, from);
    },
    read(next, at, into) {
      next.read(at, into);
      if (at === offset && wasWritten) put(into, count(into) + 4096n);
    },
    reset(next) {
      wasWritten = false;
      next.reset();
    },
  };
}

/** From the second read on, without a read of pending_bytes between, a register shows something else. */
function changing(offset: number, by: bigint): V1Mutation {
  let reads = 0;
  return {
    read(next, at, into) {
      next.read(at, into);
      if (at === PENDING) reads = 0;
      if (at !== offset || into.length !== 8 || !isSaving(next)) return;
      reads += 1;
      if (reads > 1) put(into, count(into) + by);
    },
  };
}

function everySecondPending(): V1Mutation {
  let reads = 0;
  return showing(PENDING, (pending, next) => {
    if (stateOf(next) !== V1.STOP_COPY || pending === 0n) return pending;
    reads += 1;
    return reads % 2 === 0 ? pending + 1n : pending;
  });
}

/** One more buffer, of no bytes, behind the last. */
function emptyBuffer(): V1Mutation {
  let at: 'data' | 'empty' | 'end' = 'data';
  return {
    write(next, offset, from) {
      if (offset === STATE) at = 'data';
      next.write(offset, from);
    },
    read(next, offset, into) {
      next.read(offset, into);
      if (offset !== PENDING || into.length !== 8 || stateOf(next) !== V1.STOP_COPY || count(into) > 0n) return;
      at = at === 'data' ? 'empty' : 'end';
      if (at === 'empty') put(into, 8n);
    },
    reset(next) {
      at = 'data';
      next.reset();
    },
  };
}

/** Nothing is pending in stop-and-copy, if so. */
function nothingPending(
  isMeant: () => boolean,
  note: Pick<V1Mutation, 'write' | 'reset'> & { read?: (offset: number, next: V1Device) => void },
): V1Mutation {
  return {
    ...(note.write && { write: note.write }),
    ...(note.reset && { reset: note.reset }),
    read(next, offset, into) {
      note.read?.(offset, next);
      next.read(offset, into);
      if (offset === PENDING && into.length === 8 && stateOf(next) === V1.STOP_COPY && isMeant()) put(into, 0n);
    },
  };
}

function directOnly(): V1Mutation {
  let isDirect = false;
  return nothingPending(() => isDirect, {
    write(next, offset, from) {
      if (offset === STATE && value(from) === V1.STOP_COPY && stateOf(next) !== V1.STOP_COPY)
        isDirect = stateOf(next) === V1.RUNNING;
      next.write(offset, from);
    },
  });
}

function readBefore(): V1Mutation {
  let wasRead = false;
  return nothingPending(() => wasRead, {
    write(next, offset, from) {
      if (offset === STATE && value(from) === V1.PRE_COPY) wasRead = false;
      next.write(offset, from);
    },
    read(offset, next) {
      if (offset === SIZE && stateOf(next) === V1.PRE_COPY) wasRead = true;
    },
    reset(next) {
      wasRead = false;
      next.reset();
    },
  });
}

function savesOnce(): V1Mutation {
  let saves = 0;
  return nothingPending(() => saves > 1, {
    write(next, offset, from) {
      if (offset === STATE && value(from) === V1.STOP_COPY && stateOf(next) !== V1.STOP_COPY) saves += 1;
      next.write(offset, from);
    },
    reset(next) {
      saves = 0;
      next.reset();
    },
  });
}

/** Data is garbled if it is read at once after it was read in pieces. */
function garbledTogether(): V1Mutation {
  let wasInPieces = false;
  return {
    read(next, offset, into) {
      next.read(offset, into);
      if (offset < next.dataSection.offset) wasInPieces = false;
      else if (into.length <= 8) wasInPieces = true;
      else if (wasInPieces) into[0] = (into[0] ?? 0) ^ 0xff;
    },
  };
}

/** Who reads data has pending_bytes count them. */
function countsReads(): V1Mutation {
  let wasRead = false;
  return {
    read(next, offset, into) {
      next.read(offset, into);
      if (offset >= next.dataSection.offset) wasRead = true;
      if (offset === PENDING && into.length === 8 && wasRead) put(into, count(into) + 8n);
    },
    reset(next) {
      wasRead = false;
      next.reset();
    },
  };
}

/** RUNNING is taken in RESUMING though the state is bad, if so. */
function runsAnyway(
  isMeant: (loaded: { writes: number; hasFailed: boolean; isGarbage: boolean }) => boolean,
  takesGarbage = false,
): V1Mutation {
  const loaded = { writes: 0, hasFailed: false, isGarbage: false };
  return {
    write(next, offset, from) {
      if (offset === STATE && value(from) === V1.RUNNING && stateOf(next) === V1.RESUMING && isMeant(loaded)) {
        next.reset();
        return;
      }
      if (offset === STATE && value(from) === V1.RESUMING)
        Object.assign(loaded, { writes: 0, hasFailed: false, isGarbage: false });
      if (offset === SIZE && from.length === 8) {
        const at = next.dataSection.offset;
        const data = next.mapped?.subarray(0, Number(count(from)));
        loaded.isGarbage = at > 0 && data?.every((byte) => byte === GARBAGE) === true;
        loaded.writes += 1;
        if (takesGarbage && loaded.isGarbage) return;
      }
      try {
        next.write(offset, from);
      } catch (error) {
        loaded.hasFailed ||= offset === SIZE;
        throw error;
      }
    },
  };
}

function wrongStateAfterRefusal(): V1Mutation {
  let isRefused = false;
  return {
    write(next, offset, from) {
      try {
        next.write(offset, from);
      } catch (error) {
        isRefused = offset === STATE && stateOf(next) === V1.RESUMING;
        throw error;
      }
    },
    read(next, offset, into) {
      next.read(offset, into);
      if (offset === STATE && into.length === 4 && isRefused) into[0] = V1.STOP;
    },
    reset(next) {
      isRefused = false;
      next.reset();
    },
  };
}

function stoppedByResetAfterRefusal(): V1Mutation {
  let isRefused = false;
  return {
    write(next, offset, from) {
      try {
        next.write(offset, from);
      } catch (error) {
        isRefused ||= offset === SIZE;
        throw error;
      }
    },
    reset(next) {
      next.reset();
      if (isRefused) setState(next, V1.STOP);
      isRefused = false;
    },
  };
}

/** For each rule a driver that breaks it. */
export const v1Mutants: ReadonlyMap<string, V1Mutant> = new Map<string, V1Mutant>([
  arc('RUNNING', 'STOP'),
  arc('RUNNING', 'STOP_COPY'),
  arc('STOP_COPY', 'STOP'),
  arc('RUNNING', 'PRE_COPY'),
  arc('PRE_COPY', 'STOP_COPY'),
  arc('RUNNING', 'RESUMING'),
  arc('RESUMING', 'RUNNING', LOADS),
  arc('RUNNING', 'RUNNING'),
  arc('STOP', 'RUNNING', ['v1-repeat']),
  arc('STOP_COPY', 'RUNNING'),
  arc('PRE_COPY', 'RUNNING'),
  arc('STOP', 'STOP_COPY'),
  arc('STOP_COPY', 'STOP_COPY'),
  arc('STOP', 'RESUMING'),
  takes(5),
  takes(6),
  takes(7),
  reset('STOP'),
  reset('RUNNING'),
  reset('STOP_COPY'),
  reset('PRE_COPY'),
  reset('RESUMING'),
  [
    'v1-state-shown',
    {
      make: () => ({
        read(next, offset, into) {
          next.read(offset, into);
          if (offset === STATE && into.length === 4 && into[0] === V1.PRE_COPY) into[0] = 5;
        },
      }),
      also: ['v1-arc-running-pre-copy'],
    },
  ],
  width('device-state', STATE, 4),
  width('pending-bytes', PENDING, 8),
  width('data-offset', OFFSET, 8),
  width('data-size', SIZE, 8),
  anyWidth('v1-alignment', (offset) => offset === 2 || offset === 12),
  [
    'v1-reserved',
    {
      make: () => ({
        read(next, offset, into) {
          next.read(offset, into);
          if (offset === RESERVED) into[0] = 1;
        },
      }),
    },
  ],
  ['v1-read-only-pending-bytes', { make: () => writable(PENDING) }],
  ['v1-read-only-data-offset', { make: () => writable(OFFSET) }],
  ['v1-pending-again', { make: everySecondPending, also: ['v1-read-only-pending-bytes', 'v1-data-again'] }],
  ['v1-buffer-again', { make: () => changing(SIZE, -1n) }],
  ['v1-data-offset', { make: () => changing(OFFSET, 8n), also: ['v1-buffer-again'] }],
  [
    'v1-data-size',
    { make: () => showing(SIZE, (size, next) => (isSaving(next) && size > 0n ? BigInt(next.regionSize) : size)) },
  ],
  ['v1-save-end', { make: emptyBuffer }],
  ['v1-stop-copy-direct', { make: directOnly }],
  [
    'v1-pre-copy-pending',
    {
      make: () => ({
        read: (next, offset, into) =>
          offset === PENDING && stateOf(next) === V1.PRE_COPY ? fail() : next.read(offset, into),
      }),
    },
  ],
  ['v1-pre-copy-load', { make: readBefore }],
  [
    'v1-load',
    {
      make: () => ({ write: (next, offset, from) => (offset === SIZE ? fail() : next.write(offset, from)) }),
      also: LOADS,
    },
  ],
  ['v1-repeat', { make: savesOnce }],
  [
    'v1-data-read',
    {
      make: () => ({
        read(next, offset, into) {
          next.read(offset, into);
          if (offset >= next.dataSection.offset) into.fill(0xdb);
        },
      }),
    },
  ],
  ['v1-data-pieces', { make: garbledTogether, isUnmapped: true }],
  ['v1-data-again', { make: countsReads }],
  ['v1-refuses-nothing', { make: () => runsAnyway(({ writes }) => writes === 0) }],
  ['v1-refuses-truncated', { make: () => runsAnyway(({ writes, hasFailed }) => writes > 0 && !hasFailed) }],
  ['v1-refuses-garbage', { make: () => runsAnyway(({ isGarbage }) => isGarbage, true) }],
  ['v1-refused-state', { make: wrongStateAfterRefusal }],
  ['v1-refused-reset', { make: stoppedByResetAfterRefusal }],
]);
