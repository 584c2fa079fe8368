import { errnoName, errnoNumber, type ErrnoName } from '../abi/errno.ts';
import { ShimError } from '../error.ts';
import {
  below,
  choice,
  count,
  either,
  flag,
  list,
  matching,
  object,
  oneOf,
  optional,
  record,
  text,
  Wrong,
} from './check.ts';
import type { Check, Fields } from './check.ts';
import { MAX_DRIVER_CALLS, MAX_LINE, RECORDING_FORMAT, RECORDING_VERSION, type RecordingLine } from './format.ts';

/** What a reader gives: a line, or at the end of a file that was cut, what was left of its last line and is dropped. */
export type RecordingEntry = RecordingLine | CutLine;

/** The last line of a recording that ends within it. */
export interface CutLine {
  readonly kind: 'cut';
  /** Its number, from 1 on. */
  readonly line: number;
  /** How much of it there was. */
  readonly bytes: number;
}

/**
 * The lines of a recording, of which `pieces` are the bytes, cut anywhere. Each line is checked, field by field, and given before the
 * next is looked at. Throws `ERR_FILE_CORRUPT` with the line's number, or `ERR_FILE_VERSION`.
 */
export function* readRecording(pieces: Iterable<Uint8Array>): Generator<RecordingEntry, void, undefined> {
  const order = new Order();
  const rest = yield* linesOf(pieces, function* (bytes, line) {
    yield order.next(parsed(bytes, line), line);
  });
  if (rest.bytes > 0) yield { kind: 'cut', line: rest.line, bytes: rest.bytes };
  else if (rest.line === 1) throw corrupt(1, 'the file is empty');
}

/** Gives each complete line to `each`, and returns what is left behind the last. */
function* linesOf<T>(
  pieces: Iterable<Uint8Array>,
  each: (bytes: Uint8Array, line: number) => Iterable<T>,
): Generator<T, { readonly line: number; readonly bytes: number }, undefined> {
  let line = 1;
  let parts: Uint8Array[] = [];
  let held = 0;
  const add = (part: Uint8Array): void => {
    held += part.length;
    if (held > MAX_LINE) throw corrupt(line, `is longer than ${MAX_LINE} bytes`);
    parts.push(part.slice()); // whose pieces they are may use them again
  };
  for (const piece of pieces) {
    let at = 0;
    for (let end = piece.indexOf(NEWLINE); end >= 0; end = piece.indexOf(NEWLINE, at)) {
      add(piece.subarray(at, end));
      yield* each(Buffer.concat(parts), line);
      at = end + 1;
      line += 1;
      parts = [];
      held = 0;
    }
    if (at < piece.length) add(piece.subarray(at));
  }
  return { line, bytes: held };
}

const NEWLINE = 0x0a;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function parsed(bytes: Uint8Array, line: number): unknown {
  try {
    return JSON.parse(utf8.decode(bytes));
  } catch (error) {
    throw corrupt(line, `is no JSON (${error instanceof Error ? error.message : String(error)})`, error);
  }
}

/** What may follow what: the header is the first line and no other, and nothing follows the end. */
class Order {
  #last: RecordingLine['kind'] | undefined;

  next(value: unknown, number: number): RecordingLine {
    if (this.#last === undefined) checkHeader(value, number);
    try {
      line(value, '');
    } catch (error) {
      if (!(error instanceof Wrong)) throw error;
      throw corrupt(number, error.message, error);
    }
    const found = value as RecordingLine;
    if (this.#last !== undefined && found.kind === 'recording') throw corrupt(number, 'a second header');
    if (this.#last === 'end') throw corrupt(number, `${found.kind} behind the end`);
    this.#last = found.kind;
    return found;
  }
}

/** Of another format, or another version of it, nothing else is looked at. */
function checkHeader(value: unknown, number: number): void {
  const { kind, format, version } = (value ?? {}) as Record<string, unknown>;
  if (kind !== 'recording' || format !== RECORDING_FORMAT) {
    throw corrupt(number, `is no header of a recording: "kind" must be "recording" and "format" "${RECORDING_FORMAT}"`);
  }
  if (version === RECORDING_VERSION) return;
  throw new ShimError(
    'ERR_FILE_VERSION',
    `recording: is of version ${JSON.stringify(version)}, this program reads version ${RECORDING_VERSION}`,
    { errno: 'EINVAL' },
  );
}

function corrupt(line: number, why: string, cause?: unknown): ShimError {
  return new ShimError('ERR_FILE_CORRUPT', `recording: line ${line}: ${why}`, { errno: 'EINVAL', cause });
}

const protocol = oneOf('v1', 'v2', 'draft-2018', 'draft-2019');
const direction = oneOf('out', 'in');
const errno: Check = (value, path) => {
  // by its number, as "toString" is a name of an object too
  if (typeof value !== 'string' || errnoName(errnoNumber(value as ErrnoName)) !== value)
    throw new Wrong(path, value, 'the name of an errno');
};
/** A state's name, or the number of none. */
const state = matching(/^(\w{1,32}|\(\d{1,16}\))$/, 'the name of a state');
const name = matching(/^[a-z_]{1,32}$/, 'the name of a register');

const ended: Fields = { errno: optional(errno) };
/** Of calls that return something: that, or the errno. */
function returned(fields: Fields): Fields {
  return { ...Object.fromEntries(Object.entries(fields).map(([key, check]) => [key, optional(check)])), ...ended };
}

/** Fails if neither a result nor an errno is there. */
function answered(fields: Fields, result: string): Check {
  const check = object(fields);
  return (value, path) => {
    check(value, path);
    const found = value as Record<string, unknown>;
    if (found[result] === undefined && found['errno'] === undefined)
      throw new Wrong(below(path, result), undefined, 'what it must be without an errno');
  };
}

const access = oneOf('read', 'write');
const v2Calls = new Map<unknown, Check>([
  ['get-state', answered(returned({ state }), 'state')],
  ['set-state', answered({ state, ...returned({ session: flag }) }, 'session')],
  ['data-size', answered(returned({ bytes: count }), 'bytes')],
  ['precopy-info', answered(returned({ initialBytes: count, dirtyBytes: count, reinit: flag }), 'initialBytes')],
  ['precopy-info-v2', object({ wanted: flag, ...ended })],
  ['data', answered({ direction, ...returned({ bytes: count }) }, 'bytes')],
  ['reset', object(ended)],
]);
const regionCalls = new Map<unknown, Check>([
  ['register', answered({ access, register: name, state: optional(state), ...returned({ value: count }) }, 'value')],
  ['data', object({ direction, offset: count, bytes: count, ...ended })],
  ['other', object({ access, offset: count, bytes: count, ...ended })],
  ['reset', object(ended)],
]);
const onRegion = choice('call', regionCalls);
const device = new Map<unknown, Check>([
  ['v1', onRegion],
  ['draft-2018', onRegion],
  ['draft-2019', onRegion],
  ['v2', choice('call', v2Calls)],
]);
const deviceCall = choice('protocol', device);
const vfio = object({
  call: matching(/^\w{1,32}$/, 'the name of a system call'),
  request: optional(matching(/^\w{1,64}$/, 'the name of an ioctl')),
  feature: optional(text),
  offset: optional(count),
  bytes: optional(count),
});
const anyCall = choice('protocol', new Map([...device, ['vfio', vfio]]));

const data = object({ bytes: count, sha256: matching(/^[0-9a-f]{64}$/, 'a sha-256'), at: optional(count) });
const driverCall: Check = (value, path) => {
  deviceCall(value, path);
  object({ time: count, device: optional(text), times: optional(count) })(value, path);
};
const pid = either(oneOf(null), count);
const result = either(oneOf('fd', 'address'), count);

const accessLine = answered(
  {
    begin: count,
    us: count,
    pid,
    tid: count,
    device: optional(text),
    node: optional(text),
    call: anyCall,
    ...returned({ result }),
    retries: optional(count),
    again: optional(oneOf(true)),
    moved: optional(object({ direction, bytes: count })),
    data: optional(data),
    asked: optional(count),
    driver: optional(list(driverCall, MAX_DRIVER_CALLS)),
    driverOmitted: optional(count),
  },
  'result',
);

const line = choice(
  'kind',
  new Map<unknown, Check>([
    [
      'recording',
      object({
        program: text,
        command: oneOf('run', 'save', 'restore', 'serve', 'proxy'),
        realtime: count,
        monotonic: count,
        host: text,
        present: either(oneOf(null), text),
        devices: list(object({ name: text, device: text, protocol }), 64),
        options: record(either(text, either(count, flag)), 64),
      }),
    ],
    ['access', accessLine],
    ['driver', object({ time: count, device: text, call: deviceCall, data: optional(data) })],
    ['opened', object({ time: count, device: text, protocol, pid, tid: count })],
    ['closed', object({ time: count, device: text })],
    ['takeover', object({ time: count, why: text })],
    ['end', object({ time: count, why: oneOf('ended', 'limit', 'lost') })],
  ]),
);
