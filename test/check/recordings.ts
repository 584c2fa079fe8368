import type { ErrnoName } from '../../src/abi/errno.ts';
import type { RecordedCall, RecordingLine } from '../../src/recording/format.ts';
import { lineOf } from '../../src/recording/line.ts';
import { recordingHeader } from '../support/recording-header.ts';

/** Recordings by hand: what a VMM asks of the device `d`, one line each. */

export interface Step {
  readonly call: RecordedCall;
  readonly errno?: ErrnoName | undefined;
  /** A group or container in place of the device. */
  readonly node?: string;
}

/** The first step is line 2. */
export function recording(steps: readonly Step[]): Uint8Array {
  const lines = steps.map(({ call, errno, node }): RecordingLine => {
    const where = node === undefined ? { device: 'd' } : { node };
    const answer = errno === undefined ? { result: 0 } : { errno };
    return { kind: 'access', begin: 1, us: 1, pid: 1, tid: 1, ...where, call, ...answer };
  });
  return Buffer.from(
    [recordingHeader(), ...lines, { kind: 'end', time: 9, why: 'ended' } as const].map(lineOf).join(''),
  );
}

type V1Register = 'device_state' | 'reserved' | 'pending_bytes' | 'data_offset' | 'data_size';

/** A read of a register, with what it showed or the errno. */
export function reads(register: V1Register, found: number | ErrnoName): Step {
  const call = { protocol: 'v1', call: 'register', access: 'read', register } as const;
  return typeof found === 'number'
    ? { call: { ...call, value: found } }
    : { call: { ...call, errno: found }, errno: found };
}

export function writes(register: V1Register, value: number, errno?: ErrnoName): Step {
  return { call: { protocol: 'v1', call: 'register', access: 'write', register, value }, errno };
}

/** As a VMM changes device_state: it reads it before. */
export function changes(from: number, to: number, errno?: ErrnoName): Step[] {
  return [reads('device_state', from), writes('device_state', to, errno)];
}

export function v1Data(direction: 'out' | 'in', errno?: ErrnoName): Step {
  return { call: { protocol: 'v1', call: 'data', direction, offset: 65_536, bytes: 8 }, errno };
}

export function other(access: 'read' | 'write', offset: number, bytes: number): Step {
  return { call: { protocol: 'v1', call: 'other', access, offset, bytes, errno: 'EINVAL' }, errno: 'EINVAL' };
}

export function resets(protocol: 'v1' | 'v2'): Step {
  return { call: { protocol, call: 'reset' } };
}

export function asks(state: string, errno?: ErrnoName): Step {
  const call = { protocol: 'v2', call: 'set-state', state } as const;
  return errno === undefined ? { call: { ...call, session: true } } : { call: { ...call, errno }, errno };
}

export function gets(state: string): Step {
  return { call: { protocol: 'v2', call: 'get-state', state } };
}

export function v2Data(direction: 'out' | 'in', moved: number | ErrnoName): Step {
  const call = { protocol: 'v2', call: 'data', direction } as const;
  return typeof moved === 'number'
    ? { call: { ...call, bytes: moved } }
    : { call: { ...call, errno: moved }, errno: moved };
}

export function precopyInfo(): Step {
  return { call: { protocol: 'v2', call: 'precopy-info', initialBytes: 1, dirtyBytes: 0 } };
}

export function dirtyPages(errno?: ErrnoName): Step {
  return {
    node: '/dev/vfio/vfio',
    call: { protocol: 'vfio', call: 'ioctl', request: 'VFIO_IOMMU_DIRTY_PAGES' },
    errno,
  };
}

export function feature(name: string, errno?: ErrnoName): Step {
  return { call: { protocol: 'vfio', call: 'ioctl', request: 'VFIO_DEVICE_FEATURE', feature: name }, errno };
}
