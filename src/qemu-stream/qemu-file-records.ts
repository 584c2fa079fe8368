import type { ByteSource } from '../byte-source.ts';
import { ShimError } from '../error.ts';
import { corrupt, Cursor, placesOf, truncated } from './qemu-file-cursor.ts';
import { QEMU_VM } from './qemu-file-header.ts';
import { checkedTag, endsSection, tagBytes, WORD_SIZE, type StreamTag } from './stream.ts';

/** Where a record lies in a migration file. */
export interface RecordPlace {
  readonly tag: StreamTag;
  /** Where its tag lies. */
  readonly offset: number;
  /** What it carries: from `start` to `end`, which is exclusive. Nothing for a bare tag. */
  readonly start: number;
  readonly end: number;
}

/** Finds the end of a configuration that begins at an offset. */
type ConfigEnd = (start: number) => number;

/** The longest configuration that is looked for. QEMU's have 276 bytes to some 40 KB, with all of MSI-X. */
export const MAX_CONFIG_SIZE = 1024 * 1024;
/** Places that look like the end of a configuration, and turn out not to be. */
const MAX_LOOKALIKES = 64;

/** The records of a START, PART or END payload, whose end the last of them tells. The cursor is left behind it. */
export function goingRecords(source: ByteSource, cursor: Cursor, sectionId: number): Generator<RecordPlace, void> {
  return records(cursor, (start) => inlineConfigEnd(source, start, sectionId), 'goes on');
}

/** The records of a FULL payload: a configuration, or a tag alone. */
export function* fullRecords(source: ByteSource, start: number, end: number): Generator<RecordPlace, void> {
  const cursor = new Cursor(source, start);
  yield* records(cursor, () => end - WORD_SIZE, 'ends');
  if (cursor.at === end) return;
  throw corrupt(`reading the FULL section at offset ${start}: its records end at ${cursor.at}, it ends at ${end}`);
}

/**
 * One payload, which goes on or ends behind the END_OF_STATE of a configuration. QEMU 5.2 writes the configuration into its END
 * payload, in front of the data (`vfio_save_complete_precopy()`, hw/vfio/migration.c), and reads on behind it wherever it meets one.
 */
function* records(
  cursor: Cursor,
  configEnd: ConfigEnd,
  behindConfig: 'goes on' | 'ends',
  after: StreamTag = 'END_OF_STATE',
): Generator<RecordPlace, void> {
  for (let previous = after, closed = false; !closed;) {
    const offset = cursor.at;
    const checked = checkedTag(cursor.word('a record tag'), previous, offset);
    if ('wrong' in checked) throw corrupt(checked.wrong);
    const { tag } = checked;
    const size = tag === 'DEV_DATA_STATE' ? cursor.u64('the size of a data record') : 0;
    const start = cursor.at;
    const end = tag === 'DEV_CONFIG_STATE' ? configEnd(start) : start + size;
    if (end < start) throw corrupt(`reading the record at offset ${offset}: no room for a configuration`);
    cursor.skip(end - start, `the bytes of ${tag}`);
    yield { tag, offset, start, end };
    closed = endsSection(tag) && (behindConfig === 'ends' || previous !== 'DEV_CONFIG_STATE');
    previous = tag;
  }
}

/**
 * Nothing says how long a configuration is. It ends at the first END_OF_STATE from which records lead to this section's footer.
 */
function inlineConfigEnd(source: ByteSource, start: number, sectionId: number): number {
  const limit = start + MAX_CONFIG_SIZE + WORD_SIZE;
  let lookalikes = 0;
  let first: ShimError | undefined;
  for (const end of placesOf(tagBytes('END_OF_STATE'), source, start, limit)) {
    const failure = failureBehind(source, end, sectionId);
    if (failure === undefined) return end;
    first ??= failure;
    lookalikes += 1;
    if (lookalikes === MAX_LOOKALIKES) break;
  }
  const message = `reading the configuration at offset ${start}: no END_OF_STATE from which its section goes on to its end`;
  const isCut = first === undefined ? limit > source.size : first.code === 'ERR_STREAM_TRUNCATED';
  throw isCut ? truncated(message) : corrupt(message);
}

/** Why a configuration of section `sectionId` cannot end at `end`. */
function failureBehind(source: ByteSource, end: number, sectionId: number): ShimError | undefined {
  const cursor = new Cursor(source, end);
  const another: ConfigEnd = (start) => {
    throw corrupt(`reading the configuration at offset ${start}: is the section's second`);
  };
  try {
    for (const _ of records(cursor, another, 'goes on', 'DEV_CONFIG_STATE'));
    readFooter(cursor, sectionId);
    return undefined;
  } catch (error) {
    if (error instanceof ShimError && error.code.startsWith('ERR_STREAM_')) return error;
    throw error;
  }
}

export function readFooter(cursor: Cursor, sectionId: number): void {
  const offset = cursor.at;
  const mark = cursor.u8('a section footer');
  const id = cursor.u32('a section footer');
  if (mark === QEMU_VM.SECTION_FOOTER && id === sectionId) return;
  throw corrupt(
    `reading the footer of section ${sectionId} at offset ${offset}: found 0x${mark.toString(16)} and id ${id}`,
  );
}
