import type { ByteSource } from '../byte-source.ts';
import { corrupt, placesOf, truncated } from './qemu-file-cursor.ts';
import { findDescription, type Description } from './qemu-file-description.ts';
import { QEMU_VM } from './qemu-file-header.ts';
import { MAX_CONFIG_SIZE } from './qemu-file-records.ts';
import type { VfioSection, Walk } from './qemu-file-walk.ts';
import { tagBytes, WORD_SIZE } from './stream.ts';

/** What lies behind the part of a file that can be walked. */
export interface Tail {
  /** The FULL sections of VFIO devices, in file order: one of each device whose configuration was not met before. */
  readonly full: readonly VfioSection[];
  readonly description: Description | undefined;
}

export function readTail(source: ByteSource, { devices, end }: Walk): Tail {
  const description = findDescription(source, end);
  const full = devices
    .filter(({ layout }) => layout === '6.2')
    .map(({ start }) => findFull(source, start, end, description))
    .sort((a, b) => a.offset - b.offset);
  return { full, description };
}

/** All of a FULL section but its payload, which lies between the two. */
export function fullFrame({ device, instanceId, version, sectionId }: VfioSection): { head: Buffer; foot: Buffer } {
  const head = Buffer.alloc(14 + device.length);
  head.writeUInt8(QEMU_VM.SECTION_FULL, 0);
  head.writeUInt32BE(sectionId, 1);
  head.writeUInt8(device.length, 5);
  head.write(device, 6, 'latin1');
  head.writeUInt32BE(instanceId, head.length - 8);
  head.writeUInt32BE(version, head.length - 4);
  const foot = Buffer.alloc(5);
  foot.writeUInt8(QEMU_VM.SECTION_FOOTER);
  foot.writeUInt32BE(sectionId, 1);
  return { head, foot };
}

/**
 * Locates a device's FULL section. Sections of other devices lie before it and do not state their length, so it is
 * searched for by its whole header, which the START section foretells byte by byte: type, section id, name, instance id
 * and version. If the file describes the device's size, the footer has to follow at that distance; if it does not,
 * the payload reaches to the first tag that can end it with this section's footer behind it.
 */
function findFull(
  source: ByteSource,
  start: VfioSection,
  from: number,
  description: Description | undefined,
): VfioSection {
  const limit = description?.offset ?? source.size;
  const size = description?.sizeOf(start.device, start.instanceId);
  const { head, foot } = fullFrame(start);
  for (const offset of placesOf(head, source, from, limit)) {
    const payload = offset + head.length;
    const end = size === undefined ? closingEnd(source, payload, foot, limit) : payload + size;
    if (end === undefined) break;
    if (hasBytes(source, end, foot)) return { ...start, kind: 'full', offset, payload: { start: payload, end } };
  }
  const message = `looking for the FULL section of "${start.device}" from offset ${from}: not found`;
  throw description === undefined ? truncated(message) : corrupt(message);
}

/** Where the payload ends at the earliest: behind END_OF_STATE, or behind DEV_CONFIG_LOAD_READY alone, and in front of its footer. */
function closingEnd(source: ByteSource, start: number, foot: Buffer, limit: number): number | undefined {
  const alone = start + WORD_SIZE;
  if (hasBytes(source, start, tagBytes('DEV_CONFIG_LOAD_READY')) && hasBytes(source, alone, foot)) return alone;
  const closing = Buffer.concat([tagBytes('END_OF_STATE'), foot]);
  for (const offset of placesOf(closing, source, start, Math.min(limit, start + MAX_CONFIG_SIZE))) {
    return offset + WORD_SIZE;
  }
  return undefined;
}

function hasBytes(source: ByteSource, position: number, wanted: Uint8Array): boolean {
  const found = Buffer.alloc(wanted.length);
  return source.read(found, position) === wanted.length && found.equals(wanted);
}
