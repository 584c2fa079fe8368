import { createHash } from 'node:crypto';
import type { DataBytes, DeviceCall } from '../recording/format.ts';
import { size } from '../recording/text.ts';
import type { Answer } from './recorded-vmm.ts';

/** What an answer is about, which decides when it is compared (docs/replay.md). */
export type Aspect =
  /** Whether a call succeeds, and why not. */
  | 'errno'
  /** The state that a device is in, and whether a data session has begun. */
  | 'state'
  /** Where data lie. */
  | 'place'
  /** How much there will be: an estimate. */
  | 'estimate'
  /** Whether anything is left. */
  | 'rest'
  /** How many bytes a call has moved. */
  | 'size'
  /** The bytes. */
  | 'contents';

/** A difference, in words of both sides. */
export interface Difference {
  readonly aspect: Aspect;
  readonly recorded: string;
  readonly replayed: string;
}

/** What was recorded. */
export interface Recorded {
  readonly call: DeviceCall;
  readonly data: DataBytes | undefined;
}

/** In what two answers differ, whether or not that is to be compared. */
export function differencesOf(recorded: Recorded, { call, data }: Answer): Difference[] {
  const was = recorded.call;
  const found: Difference[] = [];
  const differ = (aspect: Aspect, before: string, now: string): void => {
    if (before !== now) found.push({ aspect, recorded: before, replayed: now });
  };
  if (isNothingNow(was) && isNothingNow(call)) return [];
  differ('errno', was.errno ?? 'success', call.errno ?? 'success');
  if (was.errno !== undefined || call.errno !== undefined) return found;
  for (const [aspect, before, now] of fieldsOf(was, call)) differ(aspect, before, now);
  const hash = recorded.data?.sha256;
  if (hash !== undefined && data !== undefined && data.length === recorded.data?.bytes) {
    differ('contents', `sha256 ${hash}`, `sha256 ${createHash('sha256').update(data).digest('hex')}`);
  }
  return found;
}

/** "No data now" is 0 bytes in pre-copy, or `ENOMSG`, as a driver likes. */
function isNothingNow(call: DeviceCall): boolean {
  return call.protocol === 'v2' && call.call === 'data' && (call.errno === 'ENOMSG' || call.bytes === 0);
}

type Compared = readonly [aspect: Aspect, recorded: string, replayed: string];

function fieldsOf(was: DeviceCall, now: DeviceCall): Compared[] {
  if (was.call === 'register' && now.call === 'register') {
    return was.access === 'read' ? registerOf(was, now) : [];
  }
  if (was.call === 'get-state' && now.call === 'get-state') return [['state', String(was.state), String(now.state)]];
  if (was.call === 'set-state' && now.call === 'set-state') {
    return [['state', sessionText(was.session), sessionText(now.session)]];
  }
  if (was.call === 'data-size' && now.call === 'data-size')
    return [['estimate', size(was.bytes ?? 0), size(now.bytes ?? 0)]];
  if (was.call === 'precopy-info' && now.call === 'precopy-info') return [['estimate', infoText(was), infoText(now)]];
  if (was.call === 'data' && now.call === 'data') return [['size', bytesText(was.bytes), bytesText(now.bytes)]];
  return [];
}

function registerOf(
  was: Extract<DeviceCall, { readonly call: 'register' }>,
  now: Extract<DeviceCall, { readonly call: 'register' }>,
): Compared[] {
  const [before = 0, after = 0] = [was.value, now.value];
  switch (was.register) {
    case 'device_state':
      return [['state', String(was.state ?? before), String(now.state ?? after)]];
    case 'pending_bytes':
      return [
        ['rest', before > 0 ? 'something' : 'nothing', after > 0 ? 'something' : 'nothing'],
        ['estimate', bytesText(before), bytesText(after)],
      ];
    case 'data_size':
      return [['size', bytesText(before), bytesText(after)]];
    default:
      return [['place', String(before), String(after)]];
  }
}

function sessionText(begins: boolean | undefined): string {
  return begins === true ? 'a data session begins' : 'no data session begins';
}

function infoText(info: Extract<DeviceCall, { readonly call: 'precopy-info' }>): string {
  const reinit = info.reinit === true ? ', reinit' : '';
  return `initial ${bytesText(info.initialBytes)}, dirty ${bytesText(info.dirtyBytes)}${reinit}`;
}

/** Exactly, as sizes that differ little look the same otherwise. */
function bytesText(bytes: number | undefined): string {
  return `${bytes ?? 0} bytes`;
}
