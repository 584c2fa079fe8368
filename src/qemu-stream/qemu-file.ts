/**
 * The VFIO sections of a recorded QEMU migration file (`migrate exec:cat > file`) that is in memory.
 * docs/stream.md describes the file and says what is exact and what is searched for.
 */
import { memorySource } from '../byte-source.ts';
import { ShimError } from '../error.ts';
import { readTail } from './qemu-file-full.ts';
import { recordPlaces, walk, type VfioSection } from './qemu-file-walk.ts';
import type { StreamTag } from './stream.ts';

/** A record in a migration file. */
export interface VfioRecord {
  readonly tag: StreamTag;
  /** Where the tag lies in the file. */
  readonly offset: number;
  /** What the record carries, a view of the file; empty for a bare tag. */
  readonly bytes: Uint8Array;
  readonly section: VfioSection;
}

/**
 * The sections of all VFIO devices in file order. Each device has START, then PART and END, and one FULL section, which a file of
 * QEMU 5.2 has not.
 */
export function vfioSections(file: Uint8Array): VfioSection[] {
  const source = memorySource(file);
  const sections: VfioSection[] = [];
  const walking = walk(source);
  for (;;) {
    const { done, value } = walking.next();
    if (done === true) return [...sections, ...readTail(source, value).full];
    sections.push(value);
  }
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
  return Array.from(recordPlaces(memorySource(file), section), ({ tag, offset, start, end }) => ({
    tag,
    offset,
    bytes: file.subarray(start, end),
    section,
  }));
}
