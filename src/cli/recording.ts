import { constants, fstatSync, statSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { ShimError } from '../error.ts';
import { RECORDING_FORMAT, RECORDING_VERSION, type RecordingHeader } from '../recording/format.ts';
import { parseSize } from '../sim/size.ts';
import { duplicateOwn } from '../sys/fd.ts';
import { openRecord } from './record.ts';

/** The package's, which the build writes in its place. */
declare const VERSION: string;

/** The options of a command that records. */
export interface RecordingOptions {
  readonly record?: string;
  readonly recordData?: true;
  readonly recordLimit: string;
}

/** The files of a recording; the second is for the data. */
export interface RecordingFiles {
  readonly record: number | undefined;
  readonly recordData: number | undefined;
}

/** The least that there is room for: the header, and a line that says that this was all. */
const LEAST = 4096;

/** Bytes of a file from which on nothing more is recorded. Throws `ERR_ARGUMENT`. */
export function recordingLimit({ recordLimit }: RecordingOptions): number {
  const bad = (why: string): ShimError => new ShimError('ERR_ARGUMENT', `--record-limit ${recordLimit}: ${why}`);
  const limit = parseSize(recordLimit, bad);
  if (limit < LEAST) throw bad(`is less than ${LEAST} bytes`);
  return limit;
}

/**
 * Opens the files that `--record` and `--record-data` name. A recording begins with its header, so its file must be new, or have nothing
 * in it; in a directory each recording gets a file of its own. Throws `ERR_ARGUMENT`.
 */
export function openRecording({ record, recordData }: RecordingOptions): RecordingFiles {
  if (record === undefined) {
    if (recordData === true) throw new ShimError('ERR_ARGUMENT', '--record-data: give --record too');
    return { record: undefined, recordData: undefined };
  }
  const file = isDirectory(record) ? newNameIn(record) : record;
  const data = recordData === true ? openEmpty('--record-data', `${file}.data`, true) : undefined;
  return { record: openEmpty('--record', file, false), recordData: data };
}

/** Whether it is one; what else is wrong with a path shows when the file is opened. */
function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

function newNameIn(directory: string): string {
  const when = new Date().toISOString().replaceAll(/[:.]/g, '-');
  return join(directory, `vfio-shim-${when}-${process.pid}.jsonl`);
}

function openEmpty(option: string, file: string, isPlain: boolean): number {
  const fd = openRecord(option, file, isPlain ? 0 : constants.O_APPEND);
  const found = fstatSync(fd);
  if (isPlain && !found.isFile()) throw new ShimError('ERR_ARGUMENT', `${option} ${file}: is no file on a disk`);
  if (!found.isFile() || found.size === 0) return fd;
  throw new ShimError(
    'ERR_ARGUMENT',
    `${option} ${file}: has ${found.size} bytes in it, and a recording is a file of its own`,
  );
}

/** The file that `--trace` names; `-` is stderr as it is now. */
export function openTrace(file: string | undefined): number | undefined {
  if (file === undefined) return undefined;
  return file === '-' ? duplicateOwn(2).number : openRecord('--trace', file);
}

/** The first line of a recording that begins now. */
export function recordingHeader(
  what: Pick<RecordingHeader, 'command' | 'present' | 'devices' | 'options'>,
): RecordingHeader {
  const { command, present, devices, options } = what;
  return {
    kind: 'recording',
    format: RECORDING_FORMAT,
    version: RECORDING_VERSION,
    program: VERSION,
    command,
    realtime: Date.now() * 1000,
    monotonic: Number(process.hrtime.bigint() / 1000n),
    host: hostname(),
    present,
    devices,
    options,
  };
}
