import { describe, expect, it } from 'vitest';
import { judgeRecording, vmmRules } from '../../src/check/index.ts';
import { V1 } from '../../src/v1/states.ts';
import {
  asks,
  changes,
  dirtyPages,
  feature,
  gets,
  other,
  precopyInfo,
  reads,
  recording,
  resets,
  v1Data,
  v2Data,
  writes,
  type Step,
} from './recordings.ts';

const { STOP, RUNNING, STOP_COPY, PRE_COPY, RESUMING, ERROR } = V1;

const BUFFER = [reads('pending_bytes', 100), reads('data_offset', 65_536), reads('data_size', 100)];
const SAVE = [...changes(RUNNING, STOP_COPY), ...BUFFER, reads('pending_bytes', 0)];
const LOAD = [...changes(RUNNING, RESUMING), reads('data_offset', 65_536), v1Data('in'), writes('data_size', 8)];
const READ_TO_END = [asks('STOP_COPY'), v2Data('out', 100), v2Data('out', 0)];

interface Example {
  readonly broken: readonly Step[];
  /** Which of them breaks it, from 1 on. */
  readonly step: number;
  /** What is alike, and keeps the rule. */
  readonly kept: readonly Step[];
}

const examples: Readonly<Record<string, Example>> = {
  'vmm-v1-state': { broken: changes(RUNNING, 5, 'EINVAL'), step: 2, kept: changes(RUNNING, PRE_COPY) },
  'vmm-v1-reserved-bits': {
    broken: [reads('device_state', 0x101), writes('device_state', PRE_COPY)],
    step: 2,
    kept: [reads('device_state', 0x101), writes('device_state', 0x100 + PRE_COPY)],
  },
  'vmm-v1-transition': {
    broken: [...changes(RUNNING, STOP_COPY), ...changes(STOP_COPY, PRE_COPY, 'EINVAL')],
    step: 4,
    kept: [...changes(RUNNING, PRE_COPY), ...changes(PRE_COPY, STOP_COPY)],
  },
  'vmm-v1-width': { broken: [other('read', 8, 4)], step: 1, kept: [reads('pending_bytes', 0)] },
  'vmm-v1-read-only': { broken: [writes('pending_bytes', 1, 'EINVAL')], step: 1, kept: [writes('reserved', 1)] },
  'vmm-v1-data-size-write': {
    broken: [...changes(RUNNING, STOP), writes('data_size', 8, 'EINVAL')],
    step: 3,
    kept: LOAD,
  },
  'vmm-v1-pending-first': {
    broken: [...changes(RUNNING, STOP_COPY), reads('data_offset', 65_536)],
    step: 3,
    kept: [...changes(RUNNING, STOP_COPY), ...BUFFER],
  },
  'vmm-v1-offset-first': {
    broken: [...changes(RUNNING, STOP_COPY), reads('pending_bytes', 100), reads('data_size', 0)],
    step: 4,
    kept: [...changes(RUNNING, STOP_COPY), ...BUFFER],
  },
  'vmm-v1-pending-left': {
    broken: [...changes(RUNNING, STOP_COPY), ...BUFFER, ...changes(STOP_COPY, STOP)],
    step: 7,
    kept: [...SAVE, ...changes(STOP_COPY, STOP)],
  },
  'vmm-v1-state-read': {
    broken: [...changes(RUNNING, STOP_COPY, 'EIO'), reads('pending_bytes', 0)],
    step: 3,
    kept: [...changes(RUNNING, STOP_COPY, 'EIO'), reads('device_state', RUNNING), reads('pending_bytes', 0)],
  },
  'vmm-v1-error-reset': {
    broken: [reads('device_state', ERROR), writes('device_state', RUNNING, 'EINVAL')],
    step: 2,
    kept: [reads('device_state', ERROR), resets('v1'), ...changes(RUNNING, STOP)],
  },
  'vmm-v1-save-error': {
    broken: [
      ...changes(RUNNING, STOP_COPY),
      reads('pending_bytes', 'EIO'),
      reads('pending_bytes', 0),
      ...changes(STOP_COPY, STOP),
    ],
    step: 3,
    kept: [
      ...changes(RUNNING, STOP_COPY),
      reads('pending_bytes', 'EAGAIN'),
      reads('pending_bytes', 0),
      ...changes(STOP_COPY, STOP),
    ],
  },
  'vmm-v1-load-error': {
    broken: [...changes(RUNNING, RESUMING), writes('data_size', 8, 'EIO'), ...changes(RESUMING, RUNNING)],
    step: 3,
    kept: [...changes(RUNNING, RESUMING), writes('data_size', 8, 'EIO'), resets('v1'), ...changes(RUNNING, RUNNING)],
  },
  'vmm-v1-load-size': {
    broken: [...changes(RUNNING, RESUMING), v1Data('in'), ...changes(RESUMING, RUNNING)],
    step: 3,
    kept: [...LOAD, ...changes(RESUMING, RUNNING)],
  },
  'vmm-v1-dirty-pages': {
    broken: [reads('device_state', RUNNING), dirtyPages('EIO'), ...SAVE, ...changes(STOP_COPY, STOP)],
    step: 2,
    kept: [reads('device_state', RUNNING), dirtyPages(), ...SAVE, ...changes(STOP_COPY, STOP)],
  },
  'vmm-v2-state': { broken: [asks('(9)', 'EINVAL')], step: 1, kept: [asks('RUNNING_P2P')] },
  'vmm-v2-transition': {
    broken: [asks('STOP_COPY'), asks('PRE_COPY', 'EINVAL')],
    step: 2,
    kept: [asks('PRE_COPY'), asks('STOP_COPY')],
  },
  'vmm-v2-state-failed': {
    broken: [asks('PRE_COPY'), asks('STOP_COPY', 'EIO'), v2Data('out', 0)],
    step: 3,
    kept: [asks('PRE_COPY'), asks('STOP_COPY', 'EIO'), gets('PRE_COPY'), v2Data('out', 0)],
  },
  'vmm-v2-error-reset': {
    broken: [gets('ERROR'), asks('RUNNING', 'EINVAL')],
    step: 2,
    kept: [gets('ERROR'), resets('v2'), asks('RUNNING')],
  },
  'vmm-v2-data-left': {
    broken: [asks('STOP_COPY'), v2Data('out', 100), asks('STOP')],
    step: 3,
    kept: [...READ_TO_END, asks('STOP')],
  },
  'vmm-v2-session': {
    broken: [...READ_TO_END, asks('STOP'), v2Data('out', 'ENODEV')],
    step: 5,
    kept: READ_TO_END,
  },
  'vmm-v2-direction': {
    broken: [asks('RESUMING'), v2Data('out', 'EBADF')],
    step: 2,
    kept: [asks('RESUMING'), v2Data('in', 100)],
  },
  'vmm-v2-precopy-info': {
    broken: [asks('STOP_COPY'), precopyInfo()],
    step: 2,
    kept: [asks('PRE_COPY'), precopyInfo()],
  },
  'vmm-v2-save-error': {
    broken: [asks('STOP_COPY'), v2Data('out', 'EIO'), v2Data('out', 0), asks('STOP')],
    step: 2,
    kept: [asks('PRE_COPY'), v2Data('out', 'ENOMSG'), ...READ_TO_END, asks('STOP')],
  },
  'vmm-v2-load-error': {
    broken: [asks('RESUMING'), v2Data('in', 'EFAULT'), asks('RUNNING')],
    step: 2,
    kept: [asks('RESUMING'), v2Data('in', 'EFAULT'), resets('v2'), asks('RUNNING')],
  },
  'vmm-v2-dma-log': {
    broken: [asks('RUNNING'), feature('GET DMA_LOGGING_REPORT', 'EIO'), ...READ_TO_END, asks('STOP')],
    step: 2,
    kept: [asks('RUNNING'), feature('PROBE SET DMA_LOGGING_START', 'ENOTTY'), ...READ_TO_END, asks('STOP')],
  },
};

function found(steps: readonly Step[]): string[] {
  return judgeRecording([recording(steps)]).findings.map(({ id, line }) => `${id} at ${line - 1}`);
}

describe('rules of a VMM', () => {
  it('each has an example', () => {
    expect(Object.keys(examples)).toEqual(vmmRules.map(({ id }) => id));
  });

  it.each(Object.entries(examples))(
    '%s: who breaks it is found, and who keeps it is not',
    (id, { broken, step, kept }) => {
      expect(found(broken)).toEqual([`${id} at ${step}`]);
      expect(found(kept)).toEqual([]);
    },
  );

  it.each([
    ['v1', [...changes(RUNNING, STOP_COPY), ...BUFFER, ...changes(STOP_COPY, STOP), ...changes(STOP, RUNNING)]],
    ['v2', [asks('STOP_COPY'), v2Data('out', 'EIO'), asks('STOP'), asks('RUNNING')]],
  ] as const)('a migration that was given up leaves what it likes: the device runs again (%s)', (_protocol, steps) => {
    expect(found(steps)).toEqual([]);
  });

  it('an access of a wrong width that no driver has seen is found by the system call', () => {
    const read: Step = { call: { protocol: 'vfio', call: 'pread64', offset: 0, bytes: 3 }, errno: 'EINVAL' };
    expect(found([read])).toEqual(['vmm-v1-width at 1']);
    expect(found([{ call: { protocol: 'vfio', call: 'pread64', bytes: 3 }, errno: 'EINVAL' }])).toEqual([]);
  });

  it('a recording that was cut is judged as far as it goes, and says so', () => {
    const whole = recording([...changes(RUNNING, 5, 'EINVAL')]);
    const judgement = judgeRecording([whole.subarray(0, -10)]);
    expect(judgement.findings).toHaveLength(1);
    expect([judgement.isWhole, judgeRecording([whole]).isWhole]).toEqual([false, true]);
  });

  it('more findings than are listed are counted', () => {
    const many = Array.from({ length: 150 }, () => other('read', 8, 4));
    const { findings, omitted, accesses } = judgeRecording([recording(many)]);
    expect([findings.length, omitted, accesses]).toEqual([100, 50, 150]);
  });

  it('there are none for drafts, which is told', () => {
    const draft: Step = {
      call: { protocol: 'draft-2018', call: 'register', access: 'write', register: 'device_state', value: 2 },
    };
    expect(() => judgeRecording([recording([draft])])).toThrow(/speaks draft-2018, .* v1 and v2 are checked/);
  });
});
