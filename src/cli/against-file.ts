import { ShimError } from '../error.ts';
import { count, either, list, object, oneOf, optional, record, text, Wrong } from '../recording/check.ts';
import { MAGIC } from '../state-file/format.ts';
import type { Identity } from '../state-file/identity.ts';
import { OpenFile } from '../state-file/open-file.ts';
import { StateReader } from '../state-file/reader.ts';
import type { End } from './against.ts';

/** What `probe --json` says it is. New fields leave the version as it is. */
export const PROBE_FORMAT = 'vfio-shim probe';
export const PROBE_VERSION = 1;

/** The other end of a migration: as a state file has it, or `probe --json` of another host. */
export interface Against {
  readonly kind: 'state-file' | 'probe';
  readonly end: End;
}

/** No output of probe is longer. */
const LONGEST_PROBE = 2 ** 20;
const MAGIC_SIZE = 8;

/** Reads FILE of `--against`, all of it, and checks it. Throws `ERR_FILE*`. */
export function readAgainst(path: string): Against {
  using file = new OpenFile(path);
  const head = new Uint8Array(MAGIC_SIZE);
  const isState = file.read(head, 0) === MAGIC_SIZE && new DataView(head.buffer).getBigUint64(0, true) === MAGIC;
  return isState ? { kind: 'state-file', end: ofState(file) } : { kind: 'probe', end: ofProbe(file) };
}

function ofState(file: OpenFile): End {
  try {
    const reader = new StateReader(file);
    const { protocol, identity, bytes } = reader.header;
    let largestBuffer = 0;
    for (const { size } of reader.pieces(LONGEST_PROBE)) largestBuffer = Math.max(largestBuffer, size);
    const isV2 = protocol === 'v2'; // whose data are cut by whoever reads
    return {
      protocol,
      migrationFlags: null,
      identity,
      dataSize: bytes,
      largestBuffer: isV2 ? null : largestBuffer,
      dataSection: null,
    };
  } catch (error) {
    if (!(error instanceof ShimError) || error.message.startsWith(file.path)) throw error;
    throw new ShimError(error.code, `${file.path}: ${error.message}`, { errno: 'EINVAL', cause: error });
  }
}

const probed = object({
  format: oneOf(PROBE_FORMAT),
  version: count,
  protocol: oneOf('v1', 'v2', 'draft-2018', 'draft-2019', 'none'),
  migrationFlags: count,
  identity: record(text, 32),
  dataSize: either(oneOf(null), count),
  regions: list(object({ size: count, type: optional(either(oneOf(null), text)) }), 256),
});

interface Probed {
  readonly version: number;
  readonly protocol: End['protocol'];
  readonly migrationFlags: number;
  readonly identity: Identity;
  readonly dataSize: number | null;
}

function ofProbe(file: OpenFile): End {
  const { protocol, migrationFlags, identity, dataSize } = parsed(file);
  return { protocol, migrationFlags, identity, dataSize, largestBuffer: null, dataSection: null };
}

function parsed(file: OpenFile): Probed {
  const corrupt = (why: string, cause?: unknown): ShimError =>
    new ShimError('ERR_FILE_CORRUPT', `${file.path}: is neither a state file nor what probe --json prints: ${why}`, {
      errno: 'EINVAL',
      cause,
    });
  if (file.size > LONGEST_PROBE) throw corrupt(`it has ${file.size} bytes`);
  const bytes = new Uint8Array(file.size);
  const length = file.read(bytes, 0);
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes.subarray(0, length)).toString());
    probed(value, '');
    const { version } = value as Probed;
    if (version === PROBE_VERSION) return value as Probed;
    throw new ShimError(
      'ERR_FILE_VERSION',
      `${file.path}: is of version ${version} of probe --json, this program reads version ${PROBE_VERSION}`,
      { errno: 'EINVAL' },
    );
  } catch (error) {
    if (error instanceof SyntaxError) throw corrupt('it is no JSON', error);
    if (error instanceof Wrong) throw corrupt(error.message, error);
    throw error;
  }
}
