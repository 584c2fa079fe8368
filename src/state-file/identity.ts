import { ShimError } from '../error.ts';

/** What tells one kind of device from another, by name: driver, PCI ids, sizes. Short texts, as they stand in the file. */
export type Identity = Readonly<Record<string, string>>;

const KEY = /^[a-zA-Z][a-zA-Z0-9]{0,31}$/;
const MAX_KEYS = 32;
const MAX_VALUE = 256;

/** As it stands in a file's header: a JSON object of texts. */
export function encodeIdentity(identity: Identity): Uint8Array {
  check(identity, 'ERR_ARGUMENT');
  return Buffer.from(JSON.stringify(identity));
}

/** Throws `ERR_FILE_CORRUPT` for anything but a small object of short texts. */
export function decodeIdentity(bytes: Uint8Array): Identity {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf8', { fatal: true }).decode(bytes));
  } catch {
    value = undefined;
  }
  check(value, 'ERR_FILE_CORRUPT');
  return value;
}

function check(value: unknown, code: 'ERR_ARGUMENT' | 'ERR_FILE_CORRUPT'): asserts value is Identity {
  const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
  const entries = isObject ? Object.entries(value as Record<string, unknown>) : [];
  const isText = (text: unknown): boolean => typeof text === 'string' && text.length <= MAX_VALUE;
  if (isObject && entries.length <= MAX_KEYS && entries.every(([key, text]) => KEY.test(key) && isText(text))) return;
  throw new ShimError(code, "state file: the device's identity is not a small set of short texts", { errno: 'EINVAL' });
}

/** In words, what two devices differ in. What only one of them tells says nothing. */
export function differences(saved: Identity, mine: Identity): string[] {
  return Object.entries(saved)
    .filter(([key, value]) => Object.hasOwn(mine, key) && mine[key] !== value)
    .map(([key, value]) => `${key} is ${JSON.stringify(value)} there and ${JSON.stringify(mine[key])} here`);
}
