import { corrupt, Cursor, truncated } from './qemu-file-cursor.ts';
import { QEMU_VM, readHeader, type Configuration } from './qemu-file-header.ts';
import { skipRam, type RamLayout } from './qemu-file-ram.ts';
import { StreamReader } from './stream-reader.ts';
import { endsSection, WORD_SIZE } from './stream.ts';

type SectionKind = 'start' | 'part' | 'end' | 'full';

/** A VFIO device's section in a migration file. */
export interface VfioSection {
  /** Name of the section in the file (`idstr`): the device's path and `/vfio`, e.g. `0000:00:02.0/vfio`. */
  readonly device: string;
  readonly instanceId: number;
  readonly version: number;
  /** Number that ties the sections of a device together. */
  readonly sectionId: number;
  readonly kind: SectionKind;
  /** Where the section's type byte lies in the file. */
  readonly offset: number;
  /** The payload: header and footer are outside. `end` is exclusive. */
  readonly payload: { readonly start: number; readonly end: number };
}

interface Walk {
  readonly configuration: Configuration;
  /** The START, PART and END sections of VFIO devices, in file order. */
  readonly sections: readonly VfioSection[];
  /** Where the first section lies that cannot be walked: the first FULL section, or the EOF byte. */
  readonly end: number;
}

type Header = Pick<VfioSection, 'device' | 'instanceId' | 'version' | 'sectionId'>;

const KINDS = new Map<number, SectionKind>([
  [QEMU_VM.SECTION_START, 'start'],
  [QEMU_VM.SECTION_PART, 'part'],
  [QEMU_VM.SECTION_END, 'end'],
]);

/** Command of a postcopy migration: a second stream inside the stream. */
const MIG_CMD_PACKAGED = 3;

const RAM = 'ram';
/** `vfio_migration_init()` registers the device as `<path>/vfio`, or as `vfio` if it has no path. */
const isVfio = (device: string): boolean => device === 'vfio' || device.endsWith('/vfio');

/**
 * Walks the part of a migration file in which every length is known: header, configuration, commands, and the START,
 * PART and END sections of RAM and VFIO devices (`qemu_loadvm_state_main()`, QEMU migration/savevm.c).
 */
export function walk(file: Uint8Array): Walk {
  const cursor = new Cursor(file);
  const configuration = readHeader(cursor);
  if (configuration.capabilities.includes('mapped-ram')) {
    throw corrupt('reading the configuration: a file with the capability mapped-ram cannot be parsed');
  }
  const ram = {
    pageSize: configuration.pageSize,
    ignoreShared: configuration.capabilities.includes('x-ignore-shared'),
  };
  const headers = new Map<number, Header>();
  const sections: VfioSection[] = [];
  for (;;) {
    const offset = cursor.at;
    const type = cursor.u8('a section type');
    if (type === QEMU_VM.SECTION_FULL || type === QEMU_VM.EOF) return { configuration, sections, end: offset };
    if (type === QEMU_VM.COMMAND) {
      skipCommand(cursor);
      continue;
    }
    const kind = KINDS.get(type);
    if (kind === undefined) throw corrupt(`reading a section at offset ${offset}: unknown type ${type}`);
    const header = readSectionHeader(cursor, kind, headers);
    const start = cursor.at;
    skipPayload(file, cursor, header.device, ram);
    if (header.device !== RAM) sections.push({ ...header, kind, offset, payload: { start, end: cursor.at } });
    readFooter(cursor, header.sectionId);
  }
}

function readSectionHeader(cursor: Cursor, kind: SectionKind, headers: Map<number, Header>): Header {
  const offset = cursor.at;
  const sectionId = cursor.u32('a section id');
  if (kind === 'start') {
    const device = cursor.string('a section name');
    if (headers.has(sectionId)) throw corrupt(`reading a section at offset ${offset}: id ${sectionId} starts twice`);
    const header = { sectionId, device, instanceId: cursor.u32('an instance id'), version: cursor.u32('a version') };
    headers.set(sectionId, header);
  }
  const header = headers.get(sectionId);
  if (header === undefined) {
    throw corrupt(`reading a section at offset ${offset}: id ${sectionId} has no START section`);
  }
  return header;
}

function skipPayload(file: Uint8Array, cursor: Cursor, device: string, ram: RamLayout): void {
  if (device === RAM) {
    skipRam(cursor, ram);
  } else if (isVfio(device)) {
    cursor.at = sectionEnd(file, cursor.at);
  } else {
    throw corrupt(`reading a section at offset ${cursor.at}: the payload of "${device}" cannot be parsed`);
  }
}

/** End of a VFIO payload in which every record's length is known. */
function sectionEnd(file: Uint8Array, start: number): number {
  const reader = new StreamReader({ offset: start });
  for (const event of reader.push(file.subarray(start))) {
    if (event.kind === 'piece') continue;
    if (event.tag === 'DEV_CONFIG_STATE') {
      throw corrupt(`reading the record at offset ${event.offset}: DEV_CONFIG_STATE outside a FULL section`);
    }
    if (endsSection(event.tag)) return event.offset + WORD_SIZE;
  }
  reader.end();
  throw truncated(`reading a record tag at offset ${start}: the file ends`);
}

function skipCommand(cursor: Cursor): void {
  const offset = cursor.at;
  const command = cursor.u16('a command');
  if (command === MIG_CMD_PACKAGED) throw corrupt(`reading a command at offset ${offset}: postcopy cannot be parsed`);
  cursor.skip(cursor.u16('a command length'), 'a command');
}

function readFooter(cursor: Cursor, sectionId: number): void {
  const offset = cursor.at;
  const mark = cursor.u8('a section footer');
  const id = cursor.u32('a section footer');
  if (mark === QEMU_VM.SECTION_FOOTER && id === sectionId) return;
  throw corrupt(
    `reading the footer of section ${sectionId} at offset ${offset}: found 0x${mark.toString(16)} and id ${id}`,
  );
}
