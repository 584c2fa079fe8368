import { corrupt, type Cursor } from './qemu-file-cursor.ts';

/** Section types (`QEMU_VM_*`, QEMU migration/savevm.h). */
export const QEMU_VM = {
  EOF: 0x00,
  SECTION_START: 0x01,
  SECTION_PART: 0x02,
  SECTION_END: 0x03,
  SECTION_FULL: 0x04,
  SUBSECTION: 0x05,
  VMDESCRIPTION: 0x06,
  CONFIGURATION: 0x07,
  COMMAND: 0x08,
  SECTION_FOOTER: 0x7e,
} as const;

const QEMU_VM_FILE_MAGIC = 0x5145564d;
const QEMU_VM_FILE_VERSION = 3;
const DEFAULT_PAGE_BITS = 12;

/** What the configuration section says. */
export interface Configuration {
  /** Machine type, e.g. `pc-i440fx-7.2`; empty if the file has no configuration section. */
  readonly machine: string;
  /** Size of a guest page in bytes: 4096, unless a subsection says otherwise. */
  readonly pageSize: number;
  readonly capabilities: readonly string[];
}

/** Reads magic, version and the configuration section (`vmstate_configuration`, QEMU migration/savevm.c). */
export function readHeader(cursor: Cursor): Configuration {
  const magic = cursor.u32('the file magic');
  if (magic !== QEMU_VM_FILE_MAGIC) {
    throw corrupt(`reading the file header: magic 0x${magic.toString(16)} is not a QEMU migration stream's`);
  }
  const version = cursor.u32('the file version');
  if (version !== QEMU_VM_FILE_VERSION) throw corrupt(`reading the file header: version ${version} is not 3`);

  let machine = '';
  let pageBits = DEFAULT_PAGE_BITS;
  let capabilities: string[] = [];
  if (cursor.peek() === QEMU_VM.CONFIGURATION) {
    cursor.skip(1, 'the configuration section');
    machine = cursor.text(cursor.u32('a name length'), 'the machine name');
    while (cursor.peek() === QEMU_VM.SUBSECTION) {
      const offset = cursor.at;
      cursor.skip(1, 'a subsection');
      const name = cursor.string('a subsection name');
      cursor.skip(4, 'a subsection version');
      if (name === 'configuration/target-page-bits') pageBits = readPageBits(cursor);
      else if (name === 'configuration/capabilities') capabilities = readCapabilities(cursor);
      else if (name === 'configuration/uuid') cursor.skip(16, 'a UUID');
      else throw corrupt(`reading the configuration at offset ${offset}: subsection "${name}" cannot be parsed`);
    }
  }
  return { machine, pageSize: 2 ** pageBits, capabilities };
}

function readPageBits(cursor: Cursor): number {
  const offset = cursor.at;
  const bits = cursor.u32('the page bits');
  if (bits < 10 || bits > 30) throw corrupt(`reading the configuration at offset ${offset}: ${bits} page bits`);
  return bits;
}

/** Far more than any QEMU has; so many names can be kept in memory. */
const MAX_CAPABILITIES = 1000;

function readCapabilities(cursor: Cursor): string[] {
  const offset = cursor.at;
  const names: string[] = [];
  for (let left = cursor.u32('a capability count'); left > 0; left--) {
    names.push(cursor.string('a capability'));
    if (names.length > MAX_CAPABILITIES) {
      throw corrupt(`reading the configuration at offset ${offset}: more than ${MAX_CAPABILITIES} capabilities`);
    }
  }
  return names;
}
