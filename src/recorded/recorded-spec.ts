import { resolve } from 'node:path';
import { ShimError } from '../error.ts';
import { isOfVmm, type DeviceCall, type RecordingHeader } from '../recording/format.ts';
import { kindOf, type DriverSpec } from '../sim/drivers.ts';
import { UNKNOWN_PCI, type RecordedSpec } from '../sim/recorded.ts';
import { parseSpec } from '../sim/spec.ts';
import { tapeSize, writeTape, type Tape } from '../sim/tape.ts';
import { MAX_REFUSALS } from '../sim/tape-player.ts';
import { isDraft } from '../v1/drafts/device.ts';
import { inLargestPages } from '../v1/region.ts';
import { DataFile, headerOf, linesOfFile, type Numbered } from './file.ts';
import type { Piece } from './session-builder.ts';
import { TapeBuilder } from './tape-builder.ts';

const PREFIX = 'recording:';

/** True for a SPEC that names a recording: `recording:FILE[,device=NAME]`. */
export function isRecording(text: string): boolean {
  return text.startsWith(PREFIX);
}

/** The SPEC of a recorded device, whose recording is read for it. Throws `ERR_SPEC`, or what is wrong with the file. */
export function recordedSpec(text: string): RecordedSpec {
  const [, named = '', device] = /^(.*?)(?:,device=([^,]+))?$/s.exec(text.slice(PREFIX.length)) ?? [];
  if (named === '')
    throw new ShimError('ERR_SPEC', `device ${JSON.stringify(text)}: names no file`, { errno: 'EINVAL' });
  const file = resolve(named);
  const header = headerOf(file);
  const { name, protocol } = deviceOf(file, header, device);
  const { tape, bytes } = compiled(file, name);
  checkData(file, bytes);
  const spec = specIn(header, name);
  const kind = spec && kindOf(spec);
  return {
    ...NOTHING_ELSE,
    driver: 'recording',
    file,
    name,
    protocol,
    tape: tapeSize(tape, bytes),
    section: inLargestPages(Math.max(...tape.out.flatMap(buffersOf), ...tape.in.map((each) => each.bytes), 1)),
    size: spec?.size ?? PAGE,
    of: spec?.driver ?? name,
    pci: kind?.pci ?? UNKNOWN_PCI,
    identity: (spec && kind?.identity(spec)) ?? {},
  };
}

/** Nobody gets memory for data that are not there. */
function checkData(file: string, bytes: number): void {
  if (bytes === 0) return;
  using data = new DataFile(file);
  if (bytes <= data.size) return;
  throw new ShimError(
    'ERR_FILE_CORRUPT',
    `${file}: tells of ${bytes} bytes of data, and ${file}.data has ${data.size}`,
    {
      errno: 'EINVAL',
    },
  );
}

const PAGE = 4096;
/** No recorded device fails otherwise than its recording says. */
const NOTHING_ELSE = {
  seed: 0,
  fault: [],
  block: 0,
  dma: 0,
  'dma-at': undefined,
  'dma-from': undefined,
  'dma-log': 'on',
  'dma-peers': false,
  irq: 0,
  config: 256,
  'reset-method': 'flr',
  kernel: '6.12',
} as const;

function buffersOf({ ends }: Tape['out'][number]): number[] {
  return ends.map((end, n) => end - (ends[n - 1] ?? 0));
}

/** Writes the tape of a recorded device into the memory that it keeps. Throws `ERR_FILE_CORRUPT` if the file is another by now. */
export function fillTape({ file, name, tape: size }: RecordedSpec, kept: Uint8Array): void {
  const { tape, pieces, bytes } = compiled(file, name);
  if (tapeSize(tape, bytes) !== size) {
    throw new ShimError('ERR_FILE_CORRUPT', `${file}: has changed since the device was planned`, { errno: 'EINVAL' });
  }
  const into = writeTape(kept, tape);
  if (pieces.length === 0) return;
  using data = new DataFile(file);
  let at = 0;
  for (const piece of pieces) {
    into.set(data.read(piece.data, piece.line), at);
    at += piece.data.bytes;
  }
}

/** The device of that name, or the only one that was used; and what its driver speaks. */
function deviceOf(
  file: string,
  header: RecordingHeader,
  wanted: string | undefined,
): { readonly name: string; readonly protocol: Tape['protocol'] } {
  const used = new Map<string, string>();
  for (const { entry } of linesOfFile(file)) {
    if (entry.kind === 'opened') used.set(entry.device, entry.protocol);
    if (entry.kind === 'driver' && !isOfVmm(header)) used.set(entry.device, entry.call.protocol);
  }
  const found = [...used].filter(([name]) => wanted === undefined || name === wanted);
  const [only] = found;
  if (only === undefined || found.length > 1) {
    const names = [...used.keys()].join(', ') || 'none';
    throw new ShimError('ERR_SPEC', `recording:${file}: which device? Give ,device=NAME; there are: ${names}`, {
      errno: 'EINVAL',
    });
  }
  const [name, protocol] = only;
  if (protocol === 'v1' || protocol === 'v2') return { name, protocol };
  throw unplayable(file, `the driver of ${name} speaks ${protocol}; v1 and v2 can be played`);
}

/** What an emulated device was. */
function specIn({ devices }: RecordingHeader, name: string): DriverSpec | undefined {
  const text = devices.find((device) => device.name === name)?.device;
  try {
    return text === undefined ? undefined : parseSpec(text.replace(/^sim:/, ''));
  } catch (error) {
    if (error instanceof ShimError && error.code === 'ERR_SPEC') return undefined; // a device of the kernel, or of a later version
    throw error;
  }
}

interface Compiled {
  readonly tape: Tape;
  readonly pieces: readonly Piece[];
  readonly bytes: number;
}

function compiled(file: string, name: string): Compiled {
  const header = headerOf(file);
  const { protocol } = deviceOf(file, header, name);
  if (protocol === 'v1' && header.options['segmentation'] === 'framed')
    throw unplayable(file, 'its data are framed, and those of the driver are within the frames');
  const builder = new TapeBuilder(protocol);
  for (const numbered of linesOfFile(file)) add(builder, file, name, numbered);
  const { tape, pieces } = resultOf(builder, file);
  if (tape.refusals.length > MAX_REFUSALS)
    throw unplayable(file, `${tape.refusals.length} changes of state failed, ${MAX_REFUSALS} is the limit`);
  return { tape, pieces, bytes: pieces.reduce((sum, { data }) => sum + data.bytes, 0) };
}

function resultOf(builder: TapeBuilder, file: string): TapeBuilder['result'] {
  try {
    return builder.result;
  } catch (error) {
    throw error instanceof ShimError ? unplayable(file, error.message) : error;
  }
}

/** What a line says of the driver, and of the data that passed its user. */
function add(builder: TapeBuilder, file: string, name: string, { line, entry }: Numbered): void {
  if (entry.kind === 'access') {
    const isOurs = entry.device === name;
    for (const call of entry.driver ?? []) {
      if (call.device === undefined ? isOurs : call.device === name) builder.called(call, call.times ?? 1);
    }
    if (!isOurs) return;
    if (entry.driverOmitted !== undefined)
      throw unplayable(file, `line ${line}: ${entry.driverOmitted} calls on the driver were left out of the recording`);
    if (isDraft(entry.call.protocol) && entry.moved !== undefined)
      throw unplayable(file, `line ${line}: the VMM spoke ${entry.call.protocol}, whose data are not the driver's`);
    if (entry.call.protocol !== 'vfio') passed(builder, file, line, entry.call, entry.data);
  } else if (entry.kind === 'driver' && entry.device === name) {
    builder.called(entry.call, 1);
    passed(builder, file, line, entry.call, entry.data);
  }
}

type Data = Parameters<TapeBuilder['passed']>[1];

function passed(builder: TapeBuilder, file: string, line: number, call: DeviceCall, data: Data | undefined): void {
  if (data === undefined) return;
  const direction = directionOf(call);
  if (direction === undefined) return;
  if (data.at === undefined) {
    throw new ShimError(
      'ERR_ARGUMENT',
      `${file}: line ${line}: the data were not kept; a recording that is to be played takes --record-data`,
    );
  }
  builder.passed(direction, data, line);
}

function directionOf(call: DeviceCall): 'out' | 'in' | undefined {
  if (call.call === 'data') return call.direction;
  if (call.call !== 'register') return undefined;
  return call.access === 'read' ? 'out' : 'in';
}

function unplayable(file: string, why: string): ShimError {
  return new ShimError('ERR_FEATURE_UNSUPPORTED', `recording:${file}: ${why}`);
}
