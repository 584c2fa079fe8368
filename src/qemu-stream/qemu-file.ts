/**
 * The VFIO sections of a recorded QEMU migration file (`migrate exec:cat > file`), for files of a precopy migration
 * without multifd. docs/stream.md describes the file and says what is exact and what is searched for.
 */
import { ShimError } from '../error.ts';
import { corrupt, truncated } from './qemu-file-cursor.ts';
import { findDescription, type Description } from './qemu-file-description.ts';
import { QEMU_VM } from './qemu-file-header.ts';
import { walk, type VfioSection } from './qemu-file-walk.ts';
import { StreamReader } from './stream-reader.ts';
import { VFIO_MIG_FLAG, WORD_SIZE, type StreamTag } from './stream.ts';

/** A record in a migration file. */
export interface VfioRecord {
  readonly tag: StreamTag;
  /** Where the tag lies in the file. */
  readonly offset: number;
  /** What the record carries, a view of the file; empty for a bare tag. */
  readonly bytes: Uint8Array;
  readonly section: VfioSection;
}

/** The sections of all VFIO devices in file order. Each device has START, then PART and END, and one FULL section. */
export function vfioSections(file: Uint8Array): VfioSection[] {
  const { sections, end } = walk(file);
  const description = findDescription(file, end);
  const full = sections
    .filter((section) => section.kind === 'start')
    .map((start) => findFull(file, start, end, description))
    .toSorted((a, b) => a.offset - b.offset);
  return [...sections, ...full];
}

/** The records of all VFIO devices in file order. */
export function vfioRecords(file: Uint8Array): VfioRecord[] {
  return vfioSections(file).flatMap((section) => sectionRecords(file, section));
}

/**
 * The file as chunks, with the payloads that `replace` returns in the place of the old ones; `undefined` keeps one.
 * A FULL section keeps its size, because the description behind it states it.
 */
export function replaceVfioPayloads(
  file: Uint8Array,
  replace: (section: VfioSection, records: readonly VfioRecord[]) => readonly Uint8Array[] | undefined,
): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  let done = 0;
  for (const section of vfioSections(file)) {
    const payload = replace(section, sectionRecords(file, section));
    if (payload === undefined) continue;
    const { start, end } = section.payload;
    const size = payload.reduce((sum, chunk) => sum + chunk.length, 0);
    if (section.kind === 'full' && size !== end - start) {
      throw new ShimError(
        'ERR_ARGUMENT',
        `replacing the FULL section of "${section.device}": ${size} bytes, it has to keep its ${end - start}`,
      );
    }
    chunks.push(file.subarray(done, start));
    for (const chunk of payload) chunks.push(chunk);
    done = end;
  }
  return [...chunks, file.subarray(done)];
}

function sectionRecords(file: Uint8Array, section: VfioSection): VfioRecord[] {
  const { start, end } = section.payload;
  const records: VfioRecord[] = [];
  // A FULL payload is one tag, the configuration and one tag, or END_OF_STATE alone.
  const configSize = Math.max(0, end - start - 2 * WORD_SIZE);
  const reader = new StreamReader({ offset: start, configSize });
  for (const event of reader.push(file.subarray(start, end))) {
    if (event.kind === 'piece') continue;
    const at = event.offset + (event.tag === 'DEV_DATA_STATE' ? 2 * WORD_SIZE : WORD_SIZE);
    records.push({ tag: event.tag, offset: event.offset, bytes: file.subarray(at, at + (event.size ?? 0)), section });
  }
  reader.end();
  return records;
}

/**
 * Locates a device's FULL section. Sections of other devices lie before it and do not state their length, so it is
 * searched for by its whole header, which the START section foretells byte by byte: type, section id, name, instance id
 * and version. If the file describes the device's size, the footer has to follow at that distance; if it does not,
 * the payload reaches to the first END_OF_STATE with this section's footer behind it.
 */
function findFull(
  file: Uint8Array,
  start: VfioSection,
  from: number,
  description: Description | undefined,
): VfioSection {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.length);
  const limit = description?.offset ?? file.length;
  const size = description?.sizeOf(start.device, start.instanceId);
  const header = Buffer.from(file.subarray(start.offset, start.payload.start));
  header[0] = QEMU_VM.SECTION_FULL;
  const footer = Buffer.alloc(5);
  footer.writeUInt8(QEMU_VM.SECTION_FOOTER);
  footer.writeUInt32BE(start.sectionId, 1);
  const endOfState = Buffer.alloc(WORD_SIZE);
  endOfState.writeBigUInt64BE(VFIO_MIG_FLAG.END_OF_STATE);
  const closing = Buffer.concat([endOfState, footer]);

  for (let at = from; (at = indexFrom(bytes, header, at)) >= 0 && at < limit; at++) {
    const payload = at + header.length;
    if (size === undefined) {
      const end = indexFrom(bytes, closing, payload);
      if (end < 0 || end >= limit) break;
      return { ...start, kind: 'full', offset: at, payload: { start: payload, end: end + WORD_SIZE } };
    }
    const end = payload + size;
    if (!bytes.subarray(end, end + footer.length).equals(footer)) continue;
    return { ...start, kind: 'full', offset: at, payload: { start: payload, end } };
  }
  const message = `looking for the FULL section of "${start.device}" from offset ${from}: not found`;
  throw description === undefined ? truncated(message) : corrupt(message);
}

/** Node 20's Buffer.indexOf() is wrong about positions above 2 GiB, so it searches a view that begins at `from`. */
function indexFrom(bytes: Buffer, wanted: Buffer, from: number): number {
  const index = bytes.subarray(from).indexOf(wanted);
  return index < 0 ? -1 : from + index;
}
