import type { ByteSource } from '../byte-source.ts';
import { corrupt, Cursor } from './qemu-file-cursor.ts';
import { QEMU_VM, readHeader, type Configuration } from './qemu-file-header.ts';
import { skipRam, type RamLayout } from './qemu-file-ram.ts';
import { fullRecords, goingRecords, readFooter, type RecordPlace } from './qemu-file-records.ts';
import type { Layout } from './stream.ts';

/** The kind of a section: START, PART and END of a device that iterates, FULL of one that does not (`QEMU_VM_SECTION_*`). */
export type SectionKind = 'start' | 'part' | 'end' | 'full';

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

export interface Walk {
  readonly configuration: Configuration;
  /** The START sections of VFIO devices, in file order, each with where its device's configuration lies. */
  readonly devices: readonly { readonly start: VfioSection; readonly layout: Layout }[];
  /** Where the first section lies that cannot be walked: the first FULL section, or the EOF byte. */
  readonly end: number;
}

type Header = Pick<VfioSection, 'device' | 'instanceId' | 'version' | 'sectionId'>;

const KINDS = new Map<number, SectionKind>([
  [QEMU_VM.SECTION_START, 'start'],
  [QEMU_VM.SECTION_PART, 'part'],
  [QEMU_VM.SECTION_END, 'end'],
]);

/** Far more than a VM has of what iterates; so many can be kept in memory. */
const MAX_STARTS = 1024;

/** Command of a postcopy migration: a second stream inside the stream. */
const MIG_CMD_PACKAGED = 3;

const RAM = 'ram';
/** `vfio_migration_init()` registers the device as `<path>/vfio`, or as `vfio` if it has no path. */
const isVfio = (device: string): boolean => device === 'vfio' || device.endsWith('/vfio');

/**
 * Walks the part of a migration file in which every length is known: header, configuration, commands, and the START,
 * PART and END sections of RAM and VFIO devices (`qemu_loadvm_state_main()`, QEMU migration/savevm.c). Yields those of VFIO
 * devices one by one: a file may have more than fit into memory.
 */
export function* walk(source: ByteSource): Generator<VfioSection, Walk> {
  const cursor = new Cursor(source);
  const configuration = readHeader(cursor);
  const { pageSize, capabilities } = configuration;
  const ram: RamLayout = {
    pageSize,
    ignoreShared: capabilities.includes('x-ignore-shared'),
    mapped: capabilities.includes('mapped-ram'),
  };
  const headers = new Map<number, Header>();
  const starts: VfioSection[] = [];
  /** The ids of devices with a configuration that has been met. */
  const configured = new Set<number>();
  for (;;) {
    const offset = cursor.at;
    const type = cursor.u8('a section type');
    if (type === QEMU_VM.SECTION_FULL || type === QEMU_VM.EOF) {
      const layoutOf = ({ sectionId }: VfioSection): Layout => (configured.has(sectionId) ? '5.2' : '6.2');
      const devices = starts.map((start) => ({ start, layout: layoutOf(start) }));
      return { configuration, devices, end: offset };
    }
    if (type === QEMU_VM.COMMAND) {
      skipCommand(cursor);
      continue;
    }
    const kind = KINDS.get(type);
    if (kind === undefined) throw corrupt(`reading a section at offset ${offset}: unknown type ${type}`);
    const header = readSectionHeader(cursor, kind, headers);
    const { device, sectionId } = header;
    const start = cursor.at;
    if (device === RAM) {
      skipRam(cursor, ram);
    } else if (isVfio(device)) {
      for (const record of goingRecords(source, cursor, sectionId)) noteConfig(record, sectionId, configured);
    } else {
      throw corrupt(`reading a section at offset ${start}: the payload of "${device}" cannot be parsed`);
    }
    const section: VfioSection = { ...header, kind, offset, payload: { start, end: cursor.at } };
    readFooter(cursor, sectionId);
    if (device === RAM) continue;
    if (kind === 'start') starts.push(section);
    yield section;
  }
}

/** Where the records of a section lie. */
export function recordPlaces(source: ByteSource, { kind, sectionId, payload }: VfioSection): Iterable<RecordPlace> {
  const { start, end } = payload;
  return kind === 'full' ? fullRecords(source, start, end) : goingRecords(source, new Cursor(source, start), sectionId);
}

function noteConfig({ tag, offset }: RecordPlace, sectionId: number, configured: Set<number>): void {
  if (tag !== 'DEV_CONFIG_STATE') return;
  if (configured.has(sectionId)) {
    throw corrupt(`reading the record at offset ${offset}: section ${sectionId} has a configuration already`);
  }
  configured.add(sectionId);
}

function readSectionHeader(cursor: Cursor, kind: SectionKind, headers: Map<number, Header>): Header {
  const offset = cursor.at;
  const sectionId = cursor.u32('a section id');
  if (kind === 'start') {
    const device = cursor.string('a section name');
    if (headers.has(sectionId)) throw corrupt(`reading a section at offset ${offset}: id ${sectionId} starts twice`);
    if (headers.size === MAX_STARTS) {
      throw corrupt(`reading a section at offset ${offset}: more than ${MAX_STARTS} START sections`);
    }
    const header = { sectionId, device, instanceId: cursor.u32('an instance id'), version: cursor.u32('a version') };
    headers.set(sectionId, header);
  }
  const header = headers.get(sectionId);
  if (header === undefined) {
    throw corrupt(`reading a section at offset ${offset}: id ${sectionId} has no START section`);
  }
  return header;
}

function skipCommand(cursor: Cursor): void {
  const offset = cursor.at;
  const command = cursor.u16('a command');
  if (command === MIG_CMD_PACKAGED) throw corrupt(`reading a command at offset ${offset}: postcopy cannot be parsed`);
  cursor.skip(cursor.u16('a command length'), 'a command');
}
