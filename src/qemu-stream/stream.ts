/**
 * The records that QEMU writes for a VFIO device into a migration stream. QEMU 5.2 to 7.2 (protocol v1) and 8.0 on
 * (protocol v2) write the same ones; only where the configuration lies differs, before QEMU 6 and since (`Layout`).
 * docs/stream.md describes the format.
 */

/** Record tags, big endian u64 each: `VFIO_MIG_FLAG_*` of QEMU's hw/vfio/migration.c, without that prefix. */
export const VFIO_MIG_FLAG = {
  END_OF_STATE: 0xffffffffef100001n,
  DEV_CONFIG_STATE: 0xffffffffef100002n,
  DEV_SETUP_STATE: 0xffffffffef100003n,
  DEV_DATA_STATE: 0xffffffffef100004n,
  /** QEMU 8.1 on, with the migration capability `switchover-ack`: stands where END_OF_STATE would. */
  DEV_INIT_DATA_SENT: 0xffffffffef100005n,
  /** QEMU 10.2 on, not yet 10.0, with `x-migration-load-config-after-iter`: all of a FULL payload, as the configuration goes through multifd. */
  DEV_CONFIG_LOAD_READY: 0xffffffffef100006n,
} as const;

/** The name of a record's tag. */
export type StreamTag = keyof typeof VFIO_MIG_FLAG;

/**
 * Where a device's configuration lies: in its END section, before the data (QEMU 5.2), or in a FULL section (QEMU 6.2 and
 * later). Neither generation loads the other's.
 */
export type Layout = '5.2' | '6.2';

const tags = new Map(Object.entries(VFIO_MIG_FLAG).map(([name, value]) => [value as bigint, name as StreamTag]));

/** The tag with this value; `undefined` for a value that is no tag. */
export function streamTag(value: bigint): StreamTag | undefined {
  return tags.get(value);
}

/** A tag as it stands in a stream. */
export function tagBytes(tag: StreamTag): Uint8Array {
  const bytes = new Uint8Array(WORD_SIZE);
  new DataView(bytes.buffer).setBigUint64(0, VFIO_MIG_FLAG[tag]);
  return bytes;
}

/** Tags that end a section payload: `vfio_load_state()` of QEMU returns after each of them. */
export function endsSection(tag: StreamTag): boolean {
  return tag === 'END_OF_STATE' || tag === 'DEV_INIT_DATA_SENT' || tag === 'DEV_CONFIG_LOAD_READY';
}

const ANY = Object.keys(VFIO_MIG_FLAG) as StreamTag[];

/** What may follow a record. After a tag that ends the section, a new one begins. */
const MAY_FOLLOW: Readonly<Record<StreamTag, readonly StreamTag[]>> = {
  DEV_SETUP_STATE: ['END_OF_STATE'],
  DEV_DATA_STATE: ['DEV_DATA_STATE', 'DEV_INIT_DATA_SENT', 'END_OF_STATE'],
  DEV_CONFIG_STATE: ['END_OF_STATE'],
  DEV_INIT_DATA_SENT: ANY,
  DEV_CONFIG_LOAD_READY: ANY,
  END_OF_STATE: ANY,
};

/** The record with this tag at this offset, behind another; in words, what is wrong about it. */
export function checkedTag(value: bigint, previous: StreamTag, offset: number): { tag: StreamTag } | { wrong: string } {
  const tag = streamTag(value);
  const hex = `0x${value.toString(16).padStart(16, '0')}`;
  if (tag === undefined) return { wrong: `reading a record tag at offset ${offset}: unknown tag ${hex}` };
  if (MAY_FOLLOW[previous].includes(tag)) return { tag };
  return { wrong: `reading the record after ${previous} at offset ${offset}: unexpected ${tag}` };
}

/** Bytes of a tag, and of the size that follows DEV_DATA_STATE. */
export const WORD_SIZE = 8;

/** A record as a whole. The bytes of a record may come in several pieces. */
export type StreamRecord =
  | { readonly tag: 'DEV_DATA_STATE' | 'DEV_CONFIG_STATE'; readonly bytes: Uint8Array | readonly Uint8Array[] }
  | { readonly tag: Exclude<StreamTag, 'DEV_DATA_STATE' | 'DEV_CONFIG_STATE'> };

/** A record begins. */
export interface RecordEvent {
  readonly kind: 'record';
  readonly tag: StreamTag;
  /** Number of the record in the stream, from 0. */
  readonly index: number;
  /** Where the tag's first byte lies in the stream. */
  readonly offset: number;
  /** How many bytes the record carries: DEV_DATA_STATE's size, 0 for a bare tag, `undefined` if nothing says it. */
  readonly size: number | undefined;
}

/** Some bytes of the record that began last: a view of the pushed chunk, valid as long as that is left alone. */
export interface PieceEvent {
  readonly kind: 'piece';
  readonly tag: 'DEV_DATA_STATE' | 'DEV_CONFIG_STATE';
  readonly index: number;
  /** Where the piece lies in the record's bytes. */
  readonly at: number;
  /** The record's size, as in its RecordEvent. */
  readonly size: number | undefined;
  readonly bytes: Uint8Array;
}

/** What a StreamReader gives: a record begins, or some of its bytes are there. */
export type StreamEvent = RecordEvent | PieceEvent;
