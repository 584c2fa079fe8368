import type { ByteSource } from '../byte-source.ts';
import type { Description } from './qemu-file-description.ts';
import { readTail } from './qemu-file-full.ts';
import type { Configuration } from './qemu-file-header.ts';
import type { RecordPlace } from './qemu-file-records.ts';
import { recordPlaces, walk, type VfioSection } from './qemu-file-walk.ts';
import { VFIO_MIG_FLAG, type Layout, type StreamTag } from './stream.ts';

/** A part of a file; `end` is exclusive. */
export interface Stretch {
  /** In bytes from the beginning of the file. */
  readonly start: number;
  readonly end: number;
}

/** A VFIO device in a migration file. */
export interface VfioDevice {
  /** As its sections are called, e.g. `0000:00:02.0/vfio`. */
  readonly device: string;
  readonly instanceId: number;
  /** `undefined` if the file does not hold its configuration: the state went through multifd channels, pre-copy data apart. */
  readonly layout: Layout | undefined;
  /** How many sections of each kind. */
  readonly sections: Readonly<Record<VfioSection['kind'], number>>;
  /** Where its first section begins, and its last ends. */
  readonly place: Stretch;
  /** Its data records, with the bytes of the driver that they hold. */
  readonly data: { readonly records: number; readonly bytes: number };
  /** Where QEMU's own state of the device lies: PCI configuration, interrupts. */
  readonly config: Stretch | undefined;
  /** The tags that its sections have, in the order of their numbers. */
  readonly tags: readonly StreamTag[];
}

/** What a migration file has of VFIO devices. */
export interface VfioFile {
  readonly configuration: Configuration;
  readonly devices: readonly VfioDevice[];
  /** What QEMU says at the file's end of its sections; `undefined` if the file is cut short, or the machine leaves it out. */
  readonly description: Description | undefined;
}

/** Called with each section of VFIO devices, in file order, FULL sections last. */
export type OnSection = (section: VfioSection, records: Iterable<RecordPlace>) => void;

/** Reads a file, once and from its beginning, with no more of it in memory than a window. */
export function readVfioFile(source: ByteSource, onSection: OnSection = () => {}): VfioFile {
  const devices = new Map<number, Findings>();
  const note = (section: VfioSection): void => {
    const found = devices.get(section.sectionId) ?? new Findings(section);
    devices.set(section.sectionId, found);
    found.section(section);
    for (const record of recordPlaces(source, section)) found.record(record);
    onSection(section, recordPlaces(source, section));
  };
  const walking = walk(source);
  for (;;) {
    const { done, value } = walking.next();
    if (done !== true) {
      note(value);
      continue;
    }
    const { full, description } = readTail(source, value);
    for (const section of full) note(section);
    const layouts = new Map(value.devices.map(({ start, layout }) => [start.sectionId, layout]));
    const all = Array.from(devices, ([id, found]) => found.device(layouts.get(id)));
    return { configuration: value.configuration, devices: all, description };
  }
}

/** What has been found of one device. */
class Findings {
  readonly #start: VfioSection;
  readonly #sections = { start: 0, part: 0, end: 0, full: 0 };
  readonly #tags = new Set<StreamTag>();
  #end = 0;
  #records = 0;
  #bytes = 0;
  #config: Stretch | undefined;

  constructor(start: VfioSection) {
    this.#start = start;
  }

  section({ kind, payload }: VfioSection): void {
    this.#sections[kind] += 1;
    this.#end = payload.end + FOOTER_SIZE;
  }

  record({ tag, start, end }: RecordPlace): void {
    this.#tags.add(tag);
    if (tag === 'DEV_CONFIG_STATE') this.#config = { start, end };
    if (tag !== 'DEV_DATA_STATE') return;
    this.#records += 1;
    this.#bytes += end - start;
  }

  device(layout: Layout | undefined): VfioDevice {
    const { device, instanceId, offset } = this.#start;
    return {
      device,
      instanceId,
      layout: this.#config === undefined ? undefined : layout,
      sections: this.#sections,
      place: { start: offset, end: this.#end },
      data: { records: this.#records, bytes: this.#bytes },
      config: this.#config,
      tags: (Object.keys(VFIO_MIG_FLAG) as StreamTag[]).filter((tag) => this.#tags.has(tag)),
    };
  }
}

const FOOTER_SIZE = 5;

/** What a configuration says of a PCI device, as the guest sees it: vendor and device, subsystem vendor and device. */
export interface PciIds {
  readonly id: string;
  readonly subsystem: string;
}

/** `vmstate_pci_device` (QEMU hw/pci/pci.c): a version, big endian, then configuration space. */
const VMSTATE_PCI_DEVICE_VERSION = 2;
const SPACE_AT = 4;
const SMALLEST_SPACE = 256;
const HEADER_TYPE = 0x0e;
const SUBSYSTEM_VENDOR_ID = 0x2c;

/** The PCI ids in a configuration; `undefined` if it is not that of a PCI device. */
export function pciIdsOf(source: ByteSource, { start, end }: Stretch): PciIds | undefined {
  const bytes = Buffer.alloc(SPACE_AT + SMALLEST_SPACE);
  if (end - start < bytes.length || source.read(bytes, start) < bytes.length) return undefined;
  const space = bytes.subarray(SPACE_AT);
  if (bytes.readUInt32BE() !== VMSTATE_PCI_DEVICE_VERSION || (space.readUInt8(HEADER_TYPE) & 0x7f) !== 0) {
    return undefined;
  }
  const pair = (at: number): string =>
    [at, at + 2].map((place) => space.readUInt16LE(place).toString(16).padStart(4, '0')).join(':');
  return { id: pair(0), subsystem: pair(SUBSYSTEM_VENDOR_ID) };
}

/** An upstream machine type that says how old its QEMU can be at most, as pc-q35-8.2. */
const MACHINE = /^[a-z0-9-]*[a-z0-9]-(\d+)\.\d+$/;

/**
 * The migration protocol that the source's QEMU spoke to the driver; `undefined` if the file does not tell. QEMU 6.2 to 7.2
 * write v1 as QEMU 8.0 and later write v2, and a later QEMU may have a machine type of an earlier one.
 */
export function protocolOf({ machine }: Configuration, { layout, tags }: VfioDevice): 'v1' | 'v2' | undefined {
  if (layout === '5.2') return 'v1';
  const isNew = Number(MACHINE.exec(machine)?.[1] ?? 0) >= 8;
  return isNew || layout === undefined || tags.includes('DEV_INIT_DATA_SENT') ? 'v2' : undefined;
}
