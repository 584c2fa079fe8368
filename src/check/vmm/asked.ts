import type { ErrnoName } from '../../abi/errno.ts';
import type { RecordedCall, RecordingLine } from '../../recording/format.ts';

/** What a VMM asked, and what it got, from a line of a recording. */
export interface Asked {
  /** The line's number, from 1 on. */
  readonly line: number;
  /** `undefined` if it was a group or a container. */
  readonly device: string | undefined;
  readonly call: RecordedCall;
  readonly errno: ErrnoName | undefined;
  /** Of a read by vfio-user, how many bytes were asked for. */
  readonly bytesAsked: number | undefined;
}

/** What a line tells of a VMM; of `save` and `restore` these are the calls on the device. */
export function askedIn(line: RecordingLine, number: number, isOfVmm: boolean): Asked | undefined {
  if (line.kind === 'access' && isOfVmm) {
    const { device, call, asked } = line;
    return { line: number, device, call, errno: line.errno ?? errnoOf(call), bytesAsked: asked };
  }
  if (line.kind !== 'driver' || isOfVmm) return undefined;
  return { line: number, device: line.device, call: line.call, errno: errnoOf(line.call), bytesAsked: undefined };
}

function errnoOf(call: RecordedCall): ErrnoName | undefined {
  return call.protocol === 'vfio' ? undefined : call.errno;
}

type V1Call = Extract<RecordedCall, { readonly protocol: 'v1' }>;
type V2Call = Extract<RecordedCall, { readonly protocol: 'v2' }>;

export function isV1(call: RecordedCall): call is V1Call {
  return call.protocol === 'v1';
}

export function isV2(call: RecordedCall): call is V2Call {
  return call.protocol === 'v2';
}

/** What a write of this register wrote; `undefined` if the call is none. */
export function written({ call }: Asked, register: string): number | undefined {
  if (!isV1(call) || call.call !== 'register' || call.access !== 'write' || call.register !== register)
    return undefined;
  return call.value;
}

/** True for a read of this register, whatever came of it. */
export function isRead({ call }: Asked, register: string): boolean {
  return isV1(call) && call.call === 'register' && call.access === 'read' && call.register === register;
}

/** What a read of this register showed; `undefined` if the call is none, or failed. */
export function shown(asked: Asked, register: string): number | undefined {
  const { call, errno } = asked;
  if (!isRead(asked, register) || errno !== undefined || !isV1(call) || call.call !== 'register') return undefined;
  return call.value;
}

/** The state that a SET asked for; `undefined` if the call is none. */
export function stateAsked({ call }: Asked): string | undefined {
  return isV2(call) && call.call === 'set-state' ? call.state : undefined;
}

export function isReset({ call }: Asked): boolean {
  return call.protocol !== 'vfio' && call.call === 'reset';
}

/** True for an errno that says nothing against going on. */
export function isPassing(errno: ErrnoName): boolean {
  return errno === 'EAGAIN' || errno === 'EINTR' || errno === 'ENOMSG';
}
