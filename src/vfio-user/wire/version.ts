import { VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE, vfio_user_version } from '../../abi/vfio-user.ts';
import { ShimError } from '../../error.ts';

/** The version of the protocol: both of its migrations have the same. */
export const MAJOR = 0;
export const MINOR = 2;

/** What a side says of itself: JSON, of which these parts mean something to us. */
export interface Version {
  readonly major: number;
  readonly minor: number;
  /** All that it said. */
  readonly capabilities: Readonly<Record<string, unknown>>;
  /** How many descriptors it takes with a message. */
  readonly maxMsgFds: number;
  /** How many bytes it takes with a transfer, either way. */
  readonly maxDataXferSize: number;
  /** It takes, or has sent, a socket for the commands of servers: of a server, the place of its descriptor. */
  readonly twinSocket: { readonly supported: boolean; readonly fdIndex: number };
}

/** What a side takes that does not say (docs/vfio-user.rst: VFIO_USER_VERSION). */
const DEFAULT_MAX_MSG_FDS = 1;
/** More nesting or length than any side needs; a parser of JSON is not for bytes of a stranger without an end. */
const LONGEST = 16 * 1024;

/** Reads a VERSION. Throws `EINVAL` for one that is none. */
export function decodeVersion(body: Uint8Array): Version {
  if (body.length < vfio_user_version.size) throw invalid(`${body.length} bytes`);
  const { major, minor } = vfio_user_version.decode(body);
  const capabilities = capabilitiesIn(body.subarray(vfio_user_version.size));
  const twin = objectOf(capabilities, 'twin_socket');
  return {
    major,
    minor,
    capabilities,
    maxMsgFds: countOf(capabilities, 'max_msg_fds', DEFAULT_MAX_MSG_FDS),
    maxDataXferSize: countOf(capabilities, 'max_data_xfer_size', VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE),
    twinSocket: { supported: twin?.['supported'] === true, fdIndex: countOf(twin ?? {}, 'fd_index', 0) },
  };
}

/** A VERSION that says this. */
export function encodeVersion(minor: number, capabilities: Readonly<Record<string, unknown>>): Uint8Array {
  const json = Buffer.from(`${JSON.stringify({ capabilities })}\0`);
  const body = new Uint8Array(vfio_user_version.size + json.length);
  vfio_user_version.encode({ major: MAJOR, minor }, body);
  body.set(json, vfio_user_version.size);
  return body;
}

function capabilitiesIn(bytes: Uint8Array): Readonly<Record<string, unknown>> {
  if (bytes.length === 0) return {};
  if (bytes.length > LONGEST || bytes.at(-1) !== 0) throw invalid('its JSON is too long, or has no end');
  const [text = ''] = Buffer.from(bytes).toString('utf8').split('\0', 1);
  if (text === '') return {};
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    throw invalid('its JSON is none');
  }
  if (!isObject(parsed)) throw invalid('its JSON is no object');
  return objectOf(parsed, 'capabilities') ?? {};
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A part that is an object; `undefined` if there is none. */
function objectOf(of: Readonly<Record<string, unknown>>, name: string): Record<string, unknown> | undefined {
  const value = Object.hasOwn(of, name) ? of[name] : undefined;
  if (value === undefined || isObject(value)) return value;
  throw invalid(`${name} is no object`);
}

function countOf(of: Readonly<Record<string, unknown>>, name: string, initial: number): number {
  const value = Object.hasOwn(of, name) ? of[name] : undefined;
  if (value === undefined) return initial;
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  throw invalid(`${name} is no number`);
}

function invalid(why: string): ShimError {
  return new ShimError('ERR_DEVICE', `vfio-user: VERSION: ${why}`, { errno: 'EINVAL' });
}
