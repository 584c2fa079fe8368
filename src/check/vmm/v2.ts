import { isPassing, isReset, isV2, stateAsked, type Asked } from './asked.ts';
import { completedThough, failedBeforeCompletion, simple, type Look, type VmmRule } from './rule.ts';
import type { Seen } from './seen.ts';

const ENUM = 'linux/vfio.h 6.12, enum vfio_device_mig_state';
const SET_STATE = 'linux/vfio.h 6.12, struct vfio_device_feature_mig_state';
const INFO = 'linux/vfio.h 6.12, VFIO_MIG_GET_PRECOPY_INFO';

const STATES: ReadonlySet<string> = new Set([
  'STOP',
  'RUNNING',
  'STOP_COPY',
  'RESUMING',
  'RUNNING_P2P',
  'PRE_COPY',
  'PRE_COPY_P2P',
]);
const PRE_COPY = /^PRE_COPY/;
const SAVING = /^(PRE_COPY|STOP_COPY)/;
const WITH_SESSION = /^(PRE_COPY|STOP_COPY|RESUMING)/;

/** True if the VMM takes the stream for complete. */
function completes(asked: Asked, { v2State }: Seen): boolean {
  return v2State === 'STOP_COPY' && stateAsked(asked) === 'STOP';
}

function isData({ call }: Asked, direction: 'out' | 'in'): boolean {
  return isV2(call) && call.call === 'data' && call.direction === direction;
}

function readFailed(): Look {
  let failed: Asked | undefined;
  return (asked, seen) => {
    const offence = failed !== undefined && completes(asked, seen) ? completedThough(failed) : undefined;
    const state = stateAsked(asked);
    if (isReset(asked) || (state !== undefined && !SAVING.test(state))) failed = undefined;
    if (isData(asked, 'out') && asked.errno !== undefined && !isPassing(asked.errno)) failed ??= asked;
    return offence;
  };
}

function writeFailed(): Look {
  let failed: Asked | undefined;
  return (asked) => {
    const state = stateAsked(asked);
    const before = failed;
    if (isReset(asked) || state !== undefined) failed = undefined;
    if (isData(asked, 'in') && asked.errno !== undefined && !isPassing(asked.errno)) failed ??= asked;
    if (before === undefined || state === undefined || state === 'RESUMING') return undefined;
    return { line: before.line, why: `it failed with ${before.errno}, and the VMM asked for ${state} then` };
  };
}

function afterFailure(): Look {
  let hasFailed = false;
  return (asked) => {
    const { call } = asked;
    const isAfter = hasFailed && isV2(call) && (call.call === 'data' || call.call === 'precopy-info');
    if (isV2(call)) hasFailed = stateAsked(asked) !== undefined && asked.errno !== undefined;
    return isAfter ? { why: 'SET of a state had failed before it' } : undefined;
  };
}

function dmaLog(): Look {
  const isOfLog = ({ call }: Asked): boolean =>
    call.protocol === 'vfio' && /^(SET DMA_LOGGING_START|GET DMA_LOGGING_REPORT)$/.test(call.feature ?? '');
  return failedBeforeCompletion(isOfLog, completes);
}

/** What a VMM of the second protocol must do. */
export const v2VmmRules: readonly VmmRule[] = [
  simple(
    'vmm-v2-state',
    'A VMM asks for states that there are, and not for ERROR.',
    `${ENUM}: any -> ERROR`,
    (asked) => {
      const state = stateAsked(asked);
      return state === undefined || STATES.has(state) ? undefined : `it asks for ${state}`;
    },
  ),
  simple(
    'vmm-v2-transition',
    'A VMM does not go back from STOP_COPY to pre-copy.',
    `${ENUM}: STOP_COPY -> PRE_COPY`,
    (asked, { v2State }) => {
      const state = stateAsked(asked);
      return v2State === 'STOP_COPY' && PRE_COPY.test(state ?? '') ? `it asks for ${state} in STOP_COPY` : undefined;
    },
  ),
  {
    id: 'vmm-v2-state-failed',
    sentence: 'After a SET that failed, a VMM moves no data before it has asked for a state, or reset the device.',
    source: `${SET_STATE}: if this function fails`,
    watch: afterFailure,
  },
  simple(
    'vmm-v2-error-reset',
    'A VMM resets a device in ERROR, and asks nothing else of it.',
    `${ENUM}: any -> ERROR`,
    (asked, { v2State }) =>
      v2State === 'ERROR' && isV2(asked.call) && asked.call.call !== 'get-state' && !isReset(asked)
        ? 'the device was in ERROR'
        : undefined,
  ),
  {
    id: 'vmm-v2-data-left',
    sentence: 'A VMM reads the stream in STOP_COPY to its end: until a read returns 0.',
    source: `${ENUM}: PRE_COPY_P2P -> STOP_COPY, end of stream`,
    watch: () => (asked, seen) =>
      completes(asked, seen) && !seen.isAtEnd
        ? { why: 'no read has returned 0 in STOP_COPY', unlessItRuns: true }
        : undefined,
  },
  simple(
    'vmm-v2-session',
    'A VMM reads and writes while there is a data session.',
    `${ENUM}: data transfer session`,
    (asked, { v2State }) => {
      const isMoving = isData(asked, 'out') || isData(asked, 'in');
      return isMoving && v2State !== undefined && !WITH_SESSION.test(v2State)
        ? `the device was in ${v2State}`
        : undefined;
    },
  ),
  simple(
    'vmm-v2-direction',
    'A VMM writes data in RESUMING, and reads data in the states that save.',
    `${ENUM}: data transfer session`,
    (asked, { v2State = '' }) => {
      if (isData(asked, 'in') && SAVING.test(v2State)) return `it writes in ${v2State}`;
      return isData(asked, 'out') && v2State === 'RESUMING' ? 'it reads in RESUMING' : undefined;
    },
  ),
  simple(
    'vmm-v2-precopy-info',
    'A VMM asks for VFIO_MIG_GET_PRECOPY_INFO in PRE_COPY and PRE_COPY_P2P only.',
    INFO,
    ({ call }, { v2State }) =>
      isV2(call) && call.call === 'precopy-info' && v2State !== undefined && !PRE_COPY.test(v2State)
        ? `the device was in ${v2State}`
        : undefined,
  ),
  {
    id: 'vmm-v2-save-error',
    sentence: 'A VMM completes no save of which a read has failed.',
    source: `${ENUM}: end of stream; read(2)`,
    watch: readFailed,
  },
  {
    id: 'vmm-v2-load-error',
    sentence: 'A VMM leaves RESUMING, after a write that failed, by a reset alone.',
    source: `${ENUM}: RESUMING -> STOP, to abort`,
    watch: writeFailed,
  },
  {
    id: 'vmm-v2-dma-log',
    sentence: 'A VMM completes no save if its log of DMA has failed: it does not know which memory is dirty.',
    source: 'linux/vfio.h 6.12, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT: if any error is returned',
    watch: dmaLog,
  },
];
