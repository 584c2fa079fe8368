import type { Protocol } from '../../device/migratable.ts';
import { ShimError } from '../../error.ts';
import type { Progress } from '../serve/progress.ts';

/*
 * What a run answers at the socket of `--status`: one line of JSON (docs/status.md), which whoever asks takes from a process that it
 * does not know.
 */

/** New fields leave it as it is; one that is gone, or means something else, raises it. */
export const STATUS_VERSION = 1;

export interface Status {
  readonly version: typeof STATUS_VERSION;
  /** When that was, in milliseconds since 1970. */
  readonly time: number;
  /** How many supervisors died and were succeeded. */
  readonly takeovers: number;
  readonly devices: readonly DeviceStatus[];
}

export interface DeviceStatus extends Progress {
  readonly name: string;
  readonly device: string;
  /** Of the device itself. */
  readonly protocol: Protocol;
  /** That of the device itself; `null` if no call has shown it so far. */
  readonly state: string | null;
}

const PROTOCOLS: readonly unknown[] = ['v1', 'v2', 'draft-2018', 'draft-2019'] satisfies Protocol[];
const PHASES: readonly unknown[] = ['saving', 'loading', null] satisfies Progress['phase'][];

const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;
const isCountOrNull = (value: unknown): boolean => value === null || isCount(value);
const isText = (value: unknown): boolean => typeof value === 'string';

/** What each field of a device has to be. */
const DEVICE: Readonly<Record<keyof DeviceStatus, (value: unknown) => boolean>> = {
  name: isText,
  device: isText,
  protocol: (value) => PROTOCOLS.includes(value),
  state: (value) => value === null || isText(value),
  phase: (value) => PHASES.includes(value),
  bytesDone: isCountOrNull,
  bytesLeft: isCountOrNull,
  bytesPerSecond: isCountOrNull,
  stopCopyBytes: isCountOrNull,
  downtimeMs: isCountOrNull,
  dirtyBytesPerSecond: isCountOrNull,
};

/** Reads an answer. Throws `ERR_FILE_VERSION` or `ERR_FILE_CORRUPT`. */
export function parseStatus(text: string): Status {
  const answer = objectIn(text);
  const { version, time, takeovers, devices } = answer;
  if (version !== STATUS_VERSION && isCount(version)) {
    throw new ShimError(
      'ERR_FILE_VERSION',
      `status: version ${String(version)}, this vfio-shim knows ${STATUS_VERSION}`,
      {
        errno: 'EINVAL',
      },
    );
  }
  if (version !== STATUS_VERSION || !isCount(time) || !isCount(takeovers)) throw corrupt('is none of a run');
  if (!Array.isArray(devices)) throw corrupt('has no devices');
  for (const device of devices as unknown[]) checkDevice(device);
  return answer as unknown as Status;
}

function checkDevice(device: unknown): void {
  if (typeof device !== 'object' || device === null) throw corrupt('has a device that is no object');
  const fields = new Map<string, unknown>(Object.entries(device));
  const wrong = Object.entries(DEVICE).find(([name, isGood]) => !isGood(fields.get(name)));
  if (wrong !== undefined) throw corrupt(`a device's ${wrong[0]} is ${JSON.stringify(fields.get(wrong[0]))}`);
}

function objectIn(text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  } catch {
    // told below
  }
  throw corrupt('is no JSON object');
}

function corrupt(why: string): ShimError {
  return new ShimError('ERR_FILE_CORRUPT', `status: the answer ${why}`, { errno: 'EINVAL' });
}
