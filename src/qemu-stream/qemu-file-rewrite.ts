import type { ByteSource } from '../byte-source.ts';
import { ShimError } from '../error.ts';
import { describeToo } from './qemu-file-description.ts';
import { readVfioFile, type Stretch, type VfioDevice, type VfioFile } from './qemu-file-devices.ts';
import { fullFrame } from './qemu-file-full.ts';
import { recordPlaces, walk, type VfioSection } from './qemu-file-walk.ts';
import { StreamWriter } from './stream-writer.ts';
import { tagBytes, WORD_SIZE } from './stream.ts';

/** What a new file is made of, in order: bytes, or a stretch of the old file. */
export type Part = Uint8Array | Stretch;

/** A piece of a buffer of migration data: where it lies in that, and how long all of it is. */
export interface DataPiece {
  readonly size: number;
  readonly at: number;
  readonly bytes: Uint8Array;
}

const isOf = (device: VfioDevice, section: VfioSection): boolean =>
  device.device === section.device && device.instanceId === section.instanceId;

/**
 * The file with other data of one device, all of it in the END section, a record for each buffer. Configuration and layout stay, and
 * so do the tags that end its sections. Nothing else in a file counts data, or says where it lies.
 */
export function withData(source: ByteSource, device: VfioDevice, data: Iterable<DataPiece>): Generator<Part, void> {
  if (device.layout === undefined) throw elsewhere(`replacing the data of "${device.device}"`);
  if (device.sections.end !== 1) {
    throw unsupported(`replacing the data of "${device.device}": it has ${device.sections.end} END sections, not one`);
  }
  return replaced(source, device, data);
}

function* replaced(source: ByteSource, device: VfioDevice, data: Iterable<DataPiece>): Generator<Part, void> {
  let done = 0;
  for (const section of walk(source)) {
    if (!isOf(device, section)) continue;
    for (const { tag, offset, end } of recordPlaces(source, section)) {
      const closes = section.kind === 'end' && end === section.payload.end;
      if (tag !== 'DEV_DATA_STATE' && !closes) continue;
      yield { start: done, end: offset };
      done = tag === 'DEV_DATA_STATE' ? end : offset;
      if (closes) yield* dataRecords(data);
    }
  }
  yield { start: done, end: source.size };
}

function* dataRecords(data: Iterable<DataPiece>): Generator<Part, void> {
  for (const { size, at, bytes } of data) {
    if (at === 0) yield StreamWriter.dataHeader(size);
    yield bytes;
  }
}

/**
 * A file of QEMU 5.2 as QEMU 6.2 and later load it: each device's configuration in a FULL section, which stands behind those of
 * all others, as it has to stand behind interrupt controllers, and is described at the end of the file.
 */
export function inLayout62(source: ByteSource, file: VfioFile = readVfioFile(source)): Generator<Part, void> {
  const moved = file.devices.filter(({ layout }) => layout === '5.2');
  const [first] = file.devices;
  if (first === undefined) throw unsupported('converting the file: it has no VFIO device');
  if (moved.length < file.devices.length) {
    const other = file.devices.find(({ layout }) => layout !== '5.2') ?? first;
    if (other.layout === undefined) throw elsewhere(`converting the file: "${other.device}"`);
    throw unsupported(`converting the file: "${other.device}" has the layout of QEMU 6.2 already`);
  }
  if (file.description === undefined) {
    throw unsupported(
      'converting the file: it is cut short, or its machine describes no sections at the end: where they end is not known',
    );
  }
  const entries = moved.map(({ device, instanceId, config }) => ({ device, instanceId, size: fullSize(config) }));
  const description = describeToo(file.description, entries);
  if (description === undefined) {
    throw unsupported('converting the file: the description of its sections does not end with their list');
  }
  return converted(source, moved, file.description.offset, description);
}

function* converted(
  source: ByteSource,
  devices: readonly VfioDevice[],
  end: number,
  description: Uint8Array,
): Generator<Part, void> {
  const configs: { readonly section: VfioSection; readonly config: Stretch }[] = [];
  let done = 0;
  for (const section of walk(source)) {
    for (const { tag, offset, start, end: behind } of recordPlaces(source, section)) {
      if (tag !== 'DEV_CONFIG_STATE') continue;
      configs.push({ section, config: { start, end: behind } });
      yield { start: done, end: offset };
      done = behind + WORD_SIZE; // its END_OF_STATE goes too
    }
  }
  if (configs.length !== devices.length) throw unsupported('converting the file: it has changed meanwhile');
  const eof = end - 1;
  yield { start: done, end: eof };
  for (const { section, config } of configs) {
    const { head, foot } = fullFrame(section);
    yield head;
    yield tagBytes('DEV_CONFIG_STATE');
    yield config;
    yield tagBytes('END_OF_STATE');
    yield foot;
  }
  yield { start: eof, end };
  yield description;
}

/** How long the payload of a FULL section with this configuration is. */
function fullSize(config: Stretch | undefined): number {
  return config === undefined ? WORD_SIZE : config.end - config.start + 2 * WORD_SIZE;
}

/** For a device of which the file has no more than what was sent in pre-copy. */
export function elsewhere(doing: string): ShimError {
  return unsupported(`${doing}: its state is not in this file, it went through multifd channels`);
}

function unsupported(message: string): ShimError {
  return new ShimError('ERR_FEATURE_UNSUPPORTED', message);
}
