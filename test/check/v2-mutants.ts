import { nextState } from '../../src/v2/fsm.ts';
import { isPreCopy, V2, type V2State, type V2StateName } from '../../src/v2/states.ts';
import type { V2DataSession, V2Device } from '../../src/v2/device.ts';
import { failure } from '../support/errno.ts';
import type { LogMutation } from './model-log.ts';
import type { V2Mutation } from './v2-mutant.ts';

/** The state of the simulated device that mutants are made of, in bytes. */
export const STATE_SIZE = 32 + 8192;
const GARBAGE = 0xa5;

export interface V2Mutant {
  /** What is broken; with memory of its own, so it is made anew for each device. */
  readonly make: () => V2Mutation;
  /** Of the log of DMA. */
  readonly log?: LogMutation;
  /** The device that it is made of, `qat` if it is not said. */
  readonly sim?: string;
  /** Other rules that this cannot but break. */
  readonly also?: readonly string[];
}

const STATES = (Object.keys(V2) as V2StateName[]).filter((name) => name !== 'ERROR');
const inId = (name: string): string => name.toLowerCase().replaceAll('_', '-');
const fail = (errno: 'EIO' | 'EINVAL' = 'EIO'): never => {
  throw failure(errno);
};

const LOADS = [
  'v2-load',
  'v2-read-pieces',
  'v2-write-pieces',
  'v2-precopy-load',
  'v2-precopy-unread',
  'v2-refused-reset',
];

/** RESUMING is left though the driver would not. */
function forceOut(device: V2Device, target: V2State): V2DataSession | undefined {
  device.reset();
  return device.setState(target);
}

function arcs(): [string, V2Mutant][] {
  return STATES.flatMap((from) =>
    STATES.map((to): [string, V2Mutant] => {
      const isTaken = nextState(7, V2[from], V2[to]) !== null;
      const setState: V2Mutation['setState'] = (next, target) => {
        if (next.getState() !== V2[from] || target !== V2[to]) return next.setState(target);
        return isTaken ? fail() : undefined;
      };
      const also =
        from === 'RESUMING' && to === 'RUNNING'
          ? LOADS
          : from === 'STOP_COPY' && to === 'RUNNING'
            ? ['v2-stop-copy-left', 'v2-repeat']
            : [];
      return [`v2-arc-${inId(from)}-${inId(to)}`, { make: () => ({ setState }), also }];
    }),
  );
}

function absent(name: 'RUNNING_P2P' | 'PRE_COPY' | 'PRE_COPY_P2P'): [string, V2Mutant] {
  const sim = name === 'RUNNING_P2P' ? 'hisi' : 'pds';
  const setState: V2Mutation['setState'] = (next, target) => (target === V2[name] ? undefined : next.setState(target));
  return [`v2-absent-${inId(name)}`, { sim, make: () => ({ setState }) }];
}

function takes(id: string, number: number): [string, V2Mutant] {
  return [
    id,
    { make: () => ({ setState: (next, target) => (target === number ? undefined : next.setState(target)) }) },
  ];
}

function resets(): [string, V2Mutant][] {
  return STATES.map((name): [string, V2Mutant] => {
    const reset: V2Mutation['reset'] = (next) => {
      if (next.getState() !== V2[name]) next.reset();
      else if (name === 'RUNNING') next.setState(V2.STOP);
    };
    const also = name === 'STOP_COPY' ? ['v2-session-ends-reset'] : name === 'RESUMING' ? ['v2-refused-reset'] : [];
    return [`v2-reset-${inId(name)}`, { make: () => ({ reset }), also }];
  });
}

function beginsNone(id: string, state: V2State): [string, V2Mutant] {
  const setState: V2Mutation['setState'] = (next, target) => {
    const session = next.setState(target);
    return target === state ? undefined : session;
  };
  return [id, { make: () => ({ setState }) }];
}

/** The session that goes on is given once more. */
function givesAgain(id: string, isMeant: (from: V2State, to: V2State) => boolean): [string, V2Mutant] {
  const setState: V2Mutation['setState'] = (next, target) => {
    const from = next.getState();
    return next.setState(target) ?? (isMeant(from, target) ? next.openSession() : undefined);
  };
  return [id, { make: () => ({ setState }) }];
}

function readsBehind(id: string, state: V2State, also: readonly string[] = []): [string, V2Mutant] {
  const read: V2Mutation['read'] = (next, into, device) => (device.getState() === state ? 0 : next.read(into));
  return [id, { make: () => ({ read }), also }];
}

/** What is written in RESUMING is counted. */
function counting(judge: (written: { bytes: number; isGarbage: boolean; hasFailed: boolean }) => boolean): V2Mutation {
  const written = { bytes: 0, isGarbage: false, hasFailed: false };
  return {
    setState(next, target) {
      const isLeft = next.getState() === V2.RESUMING && target !== V2.RESUMING;
      if (isLeft && judge(written)) return forceOut(next, target);
      if (target === V2.RESUMING) Object.assign(written, { bytes: 0, isGarbage: false, hasFailed: false });
      return next.setState(target);
    },
    write(next, from) {
      written.isGarbage = from.every((byte) => byte === GARBAGE);
      try {
        const taken = next.write(from);
        written.bytes += taken;
        return taken;
      } catch (error) {
        written.hasFailed = true;
        throw error;
      }
    },
  };
}

/** A first read in STOP_COPY loses a byte. */
function losing(isMeant: (readBefore: number) => boolean): V2Mutation {
  let before = 0;
  let isLost = false;
  return {
    setState(next, target) {
      if (target === V2.PRE_COPY) {
        before = 0;
        isLost = false;
      } else if (!isPreCopy(next.getState())) isLost = true;
      return next.setState(target);
    },
    read(next, into, device) {
      if (isPreCopy(device.getState())) {
        const read = next.read(into);
        before += read;
        return read;
      }
      if (!isLost && isMeant(before)) next.read(new Uint8Array(1));
      isLost = true;
      return next.read(into);
    },
  };
}

function refuseSecondLoad(): V2Mutation {
  let loads = 0;
  return {
    reset(next) {
      loads = 0;
      next.reset();
    },
    setState(next, target) {
      if (target === V2.RESUMING && next.getState() !== V2.RESUMING) loads += 1;
      return next.setState(target);
    },
    write: (next, from) => (loads > 1 ? fail('EINVAL') : next.write(from)),
  };
}

function errorAtSecondEnd(): V2Mutation {
  let ends = 0;
  return {
    setState(next, target) {
      ends = 0;
      return next.setState(target);
    },
    read(next, into, device) {
      const read = next.read(into);
      if (read > 0 || device.getState() !== V2.STOP_COPY) return read;
      ends += 1;
      if (ends > 1) throw failure('ENOMSG', 'ERR_NO_DATA_NOW');
      return read;
    },
  };
}

function leavesAtEndOnly(): V2Mutation {
  let isAtEnd = false;
  return {
    setState(next, target) {
      if (next.getState() === V2.STOP_COPY && target !== V2.STOP_COPY && !isAtEnd) return fail();
      isAtEnd = false;
      return next.setState(target);
    },
    reset(next) {
      isAtEnd = false;
      next.reset();
    },
    read(next, into) {
      const read = next.read(into);
      isAtEnd ||= read === 0;
      return read;
    },
  };
}

function readsAfterReset(): V2Mutation {
  let wasReset = false;
  return {
    reset(next) {
      wasReset = next.getState() === V2.STOP_COPY;
      next.reset();
    },
    setState(next, target) {
      wasReset = false;
      return next.setState(target);
    },
    read: (next, into) => (wasReset ? 0 : next.read(into)),
  };
}

function wrongStateAfterRefusal(): V2Mutation {
  let isRefused = false;
  return {
    setState(next, target) {
      try {
        return next.setState(target);
      } catch (error) {
        isRefused = next.getState() === V2.RESUMING;
        throw error;
      }
    },
    getState: (next) => (isRefused ? V2.PRE_COPY : next.getState()),
    reset(next) {
      isRefused = false;
      next.reset();
    },
  };
}

function stoppedByResetAfterRefusal(): V2Mutation {
  let isRefused = false;
  return {
    write(next, from) {
      try {
        return next.write(from);
      } catch (error) {
        isRefused = true;
        throw error;
      }
    },
    reset(next) {
      next.reset();
      if (isRefused) next.setState(V2.STOP);
      isRefused = false;
    },
  };
}

function takesGarbage(): V2Mutation {
  const counted = counting(({ isGarbage }) => isGarbage);
  return {
    ...counted,
    write(next, from, device) {
      try {
        return counted.write?.(next, from, device) ?? 0;
      } catch (error) {
        if (device.getState() === V2.RESUMING && from.every((byte) => byte === GARBAGE)) return from.length;
        throw error;
      }
    },
  };
}

function takesSurplus(): V2Mutation {
  let position = 0;
  return {
    setState(next, target) {
      if (target === V2.RESUMING) position = 0;
      return next.setState(target);
    },
    write(next, from, device) {
      const fits = device.getState() === V2.RESUMING ? from.subarray(0, STATE_SIZE - position) : from;
      if (fits.length > 0) position += next.write(fits);
      return from.length;
    },
  };
}

const INFO = { initialBytes: 32, dirtyBytes: 0 };

/** For each rule a driver that breaks it. */
export const v2Mutants: ReadonlyMap<string, V2Mutant> = new Map<string, V2Mutant>([
  ['v2-flags', { make: () => ({ flags: 15 }) }],
  ...arcs(),
  absent('RUNNING_P2P'),
  absent('PRE_COPY'),
  absent('PRE_COPY_P2P'),
  takes('v2-refused-error', V2.ERROR),
  takes('v2-refused-unknown', 8),
  ...resets(),
  ['v2-size', { make: () => ({ stopCopyLength: () => Number.MAX_SAFE_INTEGER }) }],
  beginsNone('v2-session-stop-copy', V2.STOP_COPY),
  beginsNone('v2-session-pre-copy', V2.PRE_COPY),
  beginsNone('v2-session-resuming', V2.RESUMING),
  [
    'v2-session-none',
    {
      make: () => ({
        setState(next, target) {
          if (target !== V2.STOP) return next.setState(target);
          const session = next.setState(V2.STOP_COPY);
          next.setState(V2.STOP);
          return session;
        },
      }),
      also: ['v2-session-ends-stop-copy'],
    },
  ],
  givesAgain('v2-session-again', (from, to) => from === to),
  givesAgain('v2-session-goes-on', (from, to) => isPreCopy(from) && to === V2.STOP_COPY),
  givesAgain('v2-session-p2p-goes-on', (_from, to) => to === V2.PRE_COPY_P2P),
  readsBehind('v2-session-ends-stop-copy', V2.STOP),
  readsBehind('v2-session-ends-pre-copy', V2.RUNNING, ['v2-session-ends-reset']),
  [
    'v2-session-ends-resuming',
    {
      make: () => ({
        write: (next, from, device) => (device.getState() === V2.STOP ? from.length : next.write(from)),
      }),
    },
  ],
  ['v2-session-ends-reset', { make: readsAfterReset }],
  [
    'v2-session-saving-reads',
    {
      make: () => ({
        write: (next, from, device) => (device.getState() === V2.STOP_COPY ? from.length : next.write(from)),
      }),
    },
  ],
  [
    'v2-session-resuming-writes',
    {
      make: () => ({ read: (next, into, device) => (device.getState() === V2.RESUMING ? 0 : next.read(into)) }),
    },
  ],
  ['v2-read-length', { make: () => ({ read: (next, into) => next.read(into) + (into.length === 7 ? 1 : 0) }) }],
  ['v2-write-length', { make: () => ({ write: (next, from) => (from.length === 4096 ? 0 : next.write(from)) }) }],
  ['v2-end', { make: errorAtSecondEnd }],
  ['v2-load', { make: () => ({ write: () => fail() }), also: [...LOADS, 'v2-write-length'] }],
  [
    'v2-read-pieces',
    {
      make: () => ({
        read(next, into) {
          const read = next.read(into);
          if (into.length === 13) into[0] = (into[0] ?? 0) ^ 0xff;
          return read;
        },
      }),
    },
  ],
  [
    'v2-write-pieces',
    {
      make: () => ({ write: (next, from) => (from.length === 7 ? fail('EINVAL') : next.write(from)) }),
      also: ['v2-write-length'],
    },
  ],
  ['v2-stop-copy-left', { make: leavesAtEndOnly }],
  ['v2-repeat', { make: refuseSecondLoad }],
  [
    'v2-precopy-info',
    {
      make: () => ({
        precopyInfo: (next, device) => (device.getState() === V2.PRE_COPY ? fail() : next.precopyInfo()),
      }),
    },
  ],
  [
    'v2-precopy-info-p2p',
    {
      make: () => ({
        precopyInfo: (next, device) => (device.getState() === V2.PRE_COPY_P2P ? fail() : next.precopyInfo()),
      }),
    },
  ],
  [
    'v2-precopy-info-refused',
    {
      make: () => ({ precopyInfo: (next, device) => (device.getState() === V2.STOP_COPY ? INFO : next.precopyInfo()) }),
    },
  ],
  ['v2-precopy-initial', { make: () => ({ precopyInfo: (next) => ({ ...next.precopyInfo(), initialBytes: 0 }) }) }],
  [
    'v2-precopy-initial-read',
    { make: () => ({ precopyInfo: (next) => ({ ...next.precopyInfo(), initialBytes: 32 }) }) },
  ],
  [
    'v2-precopy-end',
    {
      make: () => ({
        read(next, into) {
          try {
            return next.read(into);
          } catch (error) {
            if ((error as { errno?: string }).errno === 'ENOMSG') return 0;
            throw error;
          }
        },
      }),
    },
  ],
  ['v2-precopy-load', { make: () => losing((before) => before > 0) }],
  ['v2-precopy-unread', { make: () => losing((before) => before === 0) }],
  ['v2-refuses-nothing', { make: () => counting(({ bytes, hasFailed }) => bytes === 0 && !hasFailed) }],
  ['v2-refuses-truncated', { make: () => counting(({ bytes, hasFailed }) => bytes === STATE_SIZE - 1 && !hasFailed) }],
  ['v2-refuses-garbage', { make: takesGarbage }],
  ['v2-refuses-surplus', { make: takesSurplus }],
  ['v2-refused-for-good', { make: () => counting(({ hasFailed }) => hasFailed) }],
  ['v2-refused-state', { make: wrongStateAfterRefusal }],
  ['v2-refused-reset', { make: stoppedByResetAfterRefusal }],
  ['v2-log-start', { make: () => ({}), log: { start: (next, ranges, size) => next.start(ranges, size) + 1n } }],
  [
    'v2-log-second-start',
    {
      make: () => ({}),
      log: {
        start(next, ranges, size) {
          try {
            return next.start(ranges, size);
          } catch (error) {
            if (ranges.length === 1 && ranges[0]?.iova === 0n) return size;
            throw error;
          }
        },
      },
    },
  ],
  ['v2-log-report', { make: () => ({}), log: { report: () => fail() } }],
  [
    'v2-log-report-page-size',
    {
      make: () => ({}),
      log: {
        report: (next, range, into) => (into.pageSize === 4096n ? next.readAndClear(range, into) : fail('EINVAL')),
      },
    },
  ],
  [
    'v2-log-report-keeps',
    {
      make: () => ({}),
      log: { report: (_next, _range, into) => void into.bits.fill(0) },
      also: ['v2-log-report-without'],
    },
  ],
  [
    'v2-log-report-without',
    {
      make: () => ({}),
      log: {
        report(next, range, into) {
          try {
            next.readAndClear(range, into);
          } catch {
            // as if there were a log
          }
        },
      },
    },
  ],
  [
    'v2-log-stop',
    {
      make: () => ({}),
      log: {
        stop(next) {
          next.stop();
          fail();
        },
      },
    },
  ],
  [
    'v2-log-no-range',
    {
      make: () => ({}),
      log: { start: (next, ranges, size) => (ranges.length === 0 ? size : next.start(ranges, size)) },
    },
  ],
  [
    'v2-log-unaligned',
    {
      make: () => ({}),
      log: { start: (next, ranges, size) => (ranges[0]?.iova === 1n ? size : next.start(ranges, size)) },
    },
  ],
  [
    'v2-log-overlap',
    {
      make: () => ({}),
      log: { start: (next, ranges, size) => (ranges.length === 2 ? size : next.start(ranges, size)) },
    },
  ],
]);
