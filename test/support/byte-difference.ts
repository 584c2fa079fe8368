import { join } from './bytes.ts';

/** Bytes, or the pieces that they came in. */
export type Bytes = Uint8Array | readonly Uint8Array[];

/** So many bytes have to agree to say where others come from: three in a row agree by chance once in 16 million. */
const CONVINCING = 3;
const CANDIDATES = 64;
const BEFORE = 8;
const AROUND = 16;

/**
 * What tells `received` from `expected`: lengths, the first difference, the bytes around it, and what has happened
 * to them, if it can be told. Undefined if they are equal. Offsets are those of all pieces together.
 */
export function byteDifference(received: Bytes, expected: Bytes): string | undefined {
  const [r, e] = [whole(received), whole(expected)];
  if (Buffer.compare(r, e) === 0) return undefined;
  const at = agreement(r, 0, e, 0);
  const from = Math.max(0, at - BEFORE);
  const lines = [
    `received ${count(r.length)}, expected ${e.length}; the first difference is at byte ${at}${place(received, at)}`,
    `  received  ${row(r, from, at)}`,
    `  expected  ${row(e, from, at)}`,
  ];
  const diagnosis = diagnose(r, e, at);
  return (diagnosis === undefined ? lines : [...lines, diagnosis]).join('\n');
}

function whole(bytes: Bytes): Uint8Array {
  return bytes instanceof Uint8Array ? bytes : join(bytes);
}

/** How many bytes agree from these offsets on, to the end of either. */
function agreement(a: Uint8Array, aFrom: number, b: Uint8Array, bFrom: number): number {
  const most = Math.min(a.length - aFrom, b.length - bFrom);
  let n = 0;
  while (n < most && a[aFrom + n] === b[bFrom + n]) n += 1;
  return Math.max(0, n);
}

function count(n: number): string {
  return n === 1 ? '1 byte' : `${n} bytes`;
}

function many(n: number, what: string): string {
  return n === 1 ? `one byte is ${what}` : `${n} bytes are ${what}`;
}

function last(n: number, what: string): string {
  return n === 1 ? `the last byte is ${what}` : `the last ${n} bytes are ${what}`;
}

/** Which piece of the received ones a byte is in, if there are several. */
function place(bytes: Bytes, at: number): string {
  if (bytes instanceof Uint8Array || bytes.length < 2) return '';
  let start = 0;
  for (const [n, piece] of bytes.entries()) {
    if (at < start + piece.length) return ` (byte ${at - start} of piece ${n + 1} of ${bytes.length})`;
    start += piece.length;
  }
  return ` (behind the last of ${bytes.length} pieces)`;
}

function row(bytes: Uint8Array, from: number, at: number): string {
  const cells = Array.from(bytes.subarray(from, from + AROUND), (byte, n) => {
    const digits = byte.toString(16).padStart(2, '0');
    return from + n === at ? `[${digits}]` : ` ${digits} `;
  });
  if (bytes.length < from + AROUND) cells.push(bytes.length === at ? '[end]' : ' end ');
  return `${from}: ${cells.join('').trimEnd()}`;
}

function diagnose(r: Uint8Array, e: Uint8Array, at: number): string | undefined {
  const told = [atTheEnd, sameByte, shifted, swapped, elsewhere, within];
  for (const tell of told) {
    const text = tell(r, e, at);
    if (text !== undefined) return text;
  }
  return undefined;
}

/** One is the beginning of the other. */
function atTheEnd(r: Uint8Array, e: Uint8Array, at: number): string | undefined {
  if (at === r.length) return `ends early: ${last(e.length - at, 'missing')}`;
  if (at !== e.length) return undefined;
  const more = r.length - at;
  const again = more <= at && Buffer.compare(r.subarray(at), r.subarray(at - more, at)) === 0;
  return again
    ? `bytes ${at}.. are those of ${at - more}..: ${last(more, 'doubled')}`
    : `does not end: ${count(more)} too many behind the last`;
}

/** A hole: nothing but one value, where other bytes were expected. */
function sameByte(r: Uint8Array, e: Uint8Array, at: number): string | undefined {
  const value = r[at] ?? 0;
  const run = (bytes: Uint8Array): number => {
    let n = at;
    while (n < bytes.length && bytes[n] === value) n += 1;
    return n - at;
  };
  let length = run(r);
  // what was to be of this value anyway is no part of the hole
  if (r.length === e.length) while (length > 0 && e[at + length - 1] === value) length -= 1;
  if (length < 2 * CONVINCING || run(e) > 0) return undefined;
  const digits = value.toString(16).padStart(2, '0');
  return at + length === r.length
    ? `the rest is ${digits} throughout`
    : `bytes ${at} to ${at + length - 1} are ${digits} throughout`;
}

/** All that follows is there, in another place. */
function shifted(r: Uint8Array, e: Uint8Array, at: number): string | undefined {
  const more = r.length - e.length;
  if (more > 0 && agreement(r, at + more, e, at) === e.length - at) {
    const again = more <= at && Buffer.compare(r.subarray(at, at + more), r.subarray(at - more, at)) === 0;
    return again ? moved(at, at - more) : `${count(more)} too many: bytes ${at + more}.. are those of ${at}..`;
  }
  if (more < 0 && agreement(r, at, e, at - more) === r.length - at) return moved(at, at - more);
  const from = sources(r, e, at).find((from) => agreement(r, at, e, from) === Math.min(r.length - at, e.length - from));
  if (from === undefined) return undefined;
  // the lengths do not say so: what is far away may have come from there for any reason
  return Math.abs(from - at) <= AROUND ? moved(at, from) : `the rest is that of offset ${from}`;
}

function moved(at: number, from: number): string {
  const what =
    from < at ? many(at - from, 'doubled') : from - at === 1 ? 'a byte is missing' : many(from - at, 'missing');
  return `bytes ${at}.. are those of ${from}..: ${what}`;
}

/** Offsets in `e` where what `r` has at this offset could come from, the nearest first. */
function sources(r: Uint8Array, e: Uint8Array, at: number): number[] {
  const probe = r.subarray(at, at + BEFORE);
  if (probe.length < CONVINCING) return [];
  const haystack = Buffer.from(e.buffer, e.byteOffset, e.length);
  const found: number[] = [];
  for (let from = haystack.indexOf(probe); from >= 0 && found.length < CANDIDATES;) {
    found.push(from);
    from = haystack.indexOf(probe, from + 1);
  }
  // those that end before the probe does
  for (let less = 1; less <= probe.length - CONVINCING; less += 1) {
    const from = e.length - probe.length + less;
    if (from >= 0 && agreement(r, at, e, from) === e.length - from) found.push(from);
  }
  return found.toSorted((a, b) => Math.abs(a - at) - Math.abs(b - at));
}

/** What differs are the same bytes, the later ones first. */
function swapped(r: Uint8Array, e: Uint8Array, at: number): string | undefined {
  if (r.length !== e.length) return undefined;
  const end = endOfDifference(r, e);
  const theirs = e.subarray(at, end);
  const turned = Buffer.concat([theirs, theirs]).indexOf(r.subarray(at, end));
  if (turned <= 0) return undefined;
  return `bytes ${at} to ${at + turned - 1} come behind ${at + turned} to ${end - 1}: two pieces are swapped`;
}

/** For a while it goes on with other bytes of what was expected. */
function elsewhere(r: Uint8Array, e: Uint8Array, at: number): string | undefined {
  const best = sources(r, e, at)
    .map((from) => ({ from, length: agreement(r, at, e, from) }))
    .reduce((best, one) => (one.length > best.length ? one : best), { from: 0, length: 0 });
  if (best.length < BEFORE) return undefined;
  return `bytes ${at} to ${at + best.length - 1} are those of ${best.from} to ${best.from + best.length - 1}, then others`;
}

/** The same again behind some bytes that differ. */
function within(r: Uint8Array, e: Uint8Array, at: number): string | undefined {
  if (r.length !== e.length) return undefined;
  const end = endOfDifference(r, e);
  if (end - at === 1) return `only byte ${at} differs`;
  return end === r.length && end - at > AROUND ? undefined : `only bytes ${at} to ${end - 1} differ`;
}

/** Of sequences of one length. */
function endOfDifference(r: Uint8Array, e: Uint8Array): number {
  let end = r.length;
  while (end > 0 && r[end - 1] === e[end - 1]) end -= 1;
  return end;
}
