import { vfio_device_migration_info } from '../../abi/vfio-v1.ts';
import { isV1State, isV1Transition, V1, withoutReserved } from '../../v1/states.ts';
import { shown as inWords } from '../v1/subject.ts';
import { isPassing, isRead, isReset, isV1, written, type Asked } from './asked.ts';
import { completedThough, failedBeforeCompletion, simple, type Look, type Offence, type VmmRule } from './rule.ts';
import type { Seen } from './seen.ts';

const UAPI = 'linux/vfio.h 5.8, struct vfio_device_migration_info';
const SAVING = `${UAPI}: sequence in pre-copy and stop-and-copy`;

const isSaving = ({ v1State }: Seen): boolean => v1State === V1.PRE_COPY || v1State === V1.STOP_COPY;

/** True if the VMM takes stop-and-copy for complete. */
function completes(asked: Asked, { v1State }: Seen): boolean {
  const value = written(asked, 'device_state');
  return value !== undefined && v1State === V1.STOP_COPY && withoutReserved(value) === V1.STOP;
}

/** An access of migration data, or of the registers that lead to it. */
function movesData(asked: Asked): boolean {
  const { call } = asked;
  if (!isV1(call)) return false;
  if (call.call === 'data') return true;
  return call.call === 'register' && ['pending_bytes', 'data_offset', 'data_size'].includes(call.register);
}

function readsState(asked: Asked): boolean {
  return isRead(asked, 'device_state') || isReset(asked);
}

/** An access to the registers that is none to a register; a recording has one that no driver has seen as the system call. */
function badAccess({ call, errno }: Asked): string | undefined {
  const { REGISTERS, CALLS } = REGION;
  if (isV1(call) && call.call === 'other') return `it ${call.access}s ${call.bytes} bytes at ${call.offset}`;
  if (call.protocol !== 'vfio' || !CALLS.has(call.call) || errno === undefined) return undefined;
  const { offset, bytes } = call;
  return offset !== undefined && offset < REGISTERS
    ? `a ${call.call} of ${bytes} bytes at ${offset} is ${errno}`
    : undefined;
}

const REGION = { REGISTERS: vfio_device_migration_info.size, CALLS: new Set(['pread64', 'pwrite64']) } as const;

function saveFailed(): Look {
  let failed: Asked | undefined;
  return (asked, seen) => {
    const offence = failed !== undefined && completes(asked, seen) ? completedThough(failed) : undefined;
    if (isReset(asked) || written(asked, 'device_state') !== undefined) {
      // from pre-copy to stop-and-copy the same save goes on
      if (withoutReserved(written(asked, 'device_state') ?? V1.RUNNING) !== V1.STOP_COPY) failed = undefined;
    } else if (isSaving(seen) && movesData(asked) && asked.errno !== undefined && !isPassing(asked.errno))
      failed ??= asked;
    return offence;
  };
}

function loadFailed(): Look {
  let failed: Asked | undefined;
  return (asked, seen) => {
    let offence: Offence | undefined;
    const value = written(asked, 'device_state');
    if (failed !== undefined && value !== undefined && withoutReserved(value) !== V1.RESUMING) {
      offence = {
        line: failed.line,
        why: `it failed with ${failed.errno}, and the VMM wrote device_state ${value} then`,
      };
    }
    if (isReset(asked) || value !== undefined) failed = undefined;
    else if (seen.v1State === V1.RESUMING && movesData(asked) && asked.errno !== undefined && !isPassing(asked.errno))
      failed ??= asked;
    return offence;
  };
}

function notCommitted(): Look {
  let at: number | undefined;
  return (asked, seen) => {
    const { call } = asked;
    if (written(asked, 'data_size') !== undefined || isReset(asked)) at = undefined;
    const value = written(asked, 'device_state');
    if (value !== undefined) {
      const line = at;
      at = undefined;
      return line === undefined ? undefined : { line, why: 'no data_size was written behind it' };
    }
    if (seen.v1State === V1.RESUMING && isV1(call) && call.call === 'data' && call.direction === 'in') at = asked.line;
    return undefined;
  };
}

function stateRead(): Look {
  let hasFailed = false;
  return (asked) => {
    const isAfter = hasFailed && asked.call.protocol !== 'vfio' && !readsState(asked);
    hasFailed = written(asked, 'device_state') !== undefined && asked.errno !== undefined;
    return isAfter ? { why: 'a write of device_state had failed before it' } : undefined;
  };
}

function dirtyPages(): Look {
  const isOfContainer = ({ call, device }: Asked): boolean =>
    call.protocol === 'vfio' && call.request === 'VFIO_IOMMU_DIRTY_PAGES' && device === undefined;
  return failedBeforeCompletion(isOfContainer, completes);
}

/** What a VMM of the first protocol must do. */
export const v1VmmRules: readonly VmmRule[] = [
  simple(
    'vmm-v1-state',
    'A VMM writes no device_state that is invalid, or ERROR.',
    `${UAPI}: device_state`,
    (asked) => {
      const value = written(asked, 'device_state');
      if (value === undefined) return undefined;
      const state = withoutReserved(value);
      return isV1State(state) && state !== V1.ERROR ? undefined : `it writes ${inWords(state)}`;
    },
  ),
  simple(
    'vmm-v1-reserved-bits',
    'A VMM reads device_state before it writes it, and writes the reserved bits as it has read them.',
    `${UAPI}: device_state, read-modify-write`,
    (asked, { v1Raw }) => {
      const value = written(asked, 'device_state');
      if (value === undefined) return undefined;
      if (v1Raw === undefined) return 'it has not read device_state before';
      const [before, now] = [v1Raw - withoutReserved(v1Raw), value - withoutReserved(value)];
      return before === now ? undefined : `it has read ${v1Raw}, and writes ${value}`;
    },
  ),
  simple(
    'vmm-v1-transition',
    'A VMM asks for a state that can be reached from the one that the device is in.',
    `${UAPI}: state transitions; QEMU 7.2, hw/vfio/migration.c`,
    (asked, { v1State }) => {
      const value = withoutReserved(written(asked, 'device_state') ?? V1.RUNNING);
      if (v1State === undefined || !isV1State(v1State) || v1State === V1.ERROR || value >= V1.ERROR || value === 5)
        return undefined;
      return isV1Transition(v1State, value) ? undefined : `it writes ${inWords(value)} in ${inWords(v1State)}`;
    },
  ),
  simple(
    'vmm-v1-width',
    'A VMM accesses a register in its own width and alignment.',
    `${UAPI}: native width and alignment`,
    badAccess,
  ),
  simple('vmm-v1-read-only', 'A VMM writes neither pending_bytes nor data_offset.', `${UAPI}: read only`, (asked) => {
    const register = ['pending_bytes', 'data_offset'].find((each) => written(asked, each) !== undefined);
    return register === undefined ? undefined : `it writes ${register}`;
  }),
  simple(
    'vmm-v1-data-size-write',
    'A VMM writes data_size in RESUMING only.',
    `${UAPI}: data_size`,
    (asked, { v1State }) =>
      written(asked, 'data_size') === undefined || v1State === undefined || v1State === V1.RESUMING
        ? undefined
        : `device_state is ${inWords(v1State)}`,
  ),
  simple(
    'vmm-v1-pending-first',
    'A VMM that saves reads pending_bytes before data_offset, and no data_offset if nothing is pending.',
    `${SAVING}, a`,
    (asked, seen) => {
      if (!isRead(asked, 'data_offset') || !isSaving(seen)) return undefined;
      if (seen.pending === undefined) return 'pending_bytes was not read in this state';
      return seen.pending === 0 ? 'pending_bytes was 0' : undefined;
    },
  ),
  simple(
    'vmm-v1-offset-first',
    'A VMM that saves reads data_offset before data_size.',
    `${SAVING}, b and c`,
    (asked, seen) =>
      isRead(asked, 'data_size') && isSaving(seen) && !seen.hasOffset
        ? 'data_offset was not read since pending_bytes was'
        : undefined,
  ),
  {
    id: 'vmm-v1-pending-left',
    sentence: 'A VMM saves in stop-and-copy until pending_bytes is 0.',
    source: `${SAVING}, iterate until pending_bytes is 0`,
    watch: () => (asked, seen) => {
      if (!completes(asked, seen) || seen.pending === 0 || seen.size === 0) return undefined;
      const what = seen.pending === undefined ? 'was not read' : `was ${seen.pending}`;
      return { why: `pending_bytes ${what}`, unlessItRuns: true };
    },
  },
  {
    id: 'vmm-v1-state-read',
    sentence: 'After a write of device_state that failed, a VMM reads it, or resets the device.',
    source: `${UAPI}: device_state, a failed transition`,
    watch: stateRead,
  },
  simple(
    'vmm-v1-error-reset',
    'A VMM resets a device that shows ERROR (6), and asks nothing else of it.',
    `${UAPI}: device_state, error state`,
    (asked, { v1State }) =>
      v1State === V1.ERROR && isV1(asked.call) && !readsState(asked) ? 'device_state was 6 (ERROR)' : undefined,
  ),
  {
    id: 'vmm-v1-save-error',
    sentence: 'A VMM completes no save of which an access has failed.',
    source: `${SAVING}: if an error occurs`,
    watch: saveFailed,
  },
  {
    id: 'vmm-v1-load-error',
    sentence: 'A VMM lets no device run whose state could not be written.',
    source: `${UAPI}: sequence while _RESUMING`,
    watch: loadFailed,
  },
  {
    id: 'vmm-v1-load-size',
    sentence: 'A VMM that has written data writes their data_size.',
    source: `${UAPI}: sequence while _RESUMING, c`,
    watch: notCommitted,
  },
  {
    id: 'vmm-v1-dirty-pages',
    sentence: 'A VMM completes no save if VFIO_IOMMU_DIRTY_PAGES has failed: it does not know which memory is dirty.',
    source: 'linux/vfio.h 5.8, VFIO_IOMMU_DIRTY_PAGES',
    watch: dirtyPages,
  },
];
