import { createHash } from 'node:crypto';
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { ShimError } from '../error.ts';
import { isOfVmm, type DataBytes, type DeviceCall, type RecordingHeader } from '../recording/format.ts';
import { readRecording, type RecordingEntry } from '../recording/reader.ts';
import { inFile, onFile } from '../state-file/errors.ts';

/** An entry of a recording, and the number of its line, from 1 on. */
export interface Numbered {
  readonly line: number;
  readonly entry: RecordingEntry;
}

const PIECE = 65_536;

/** The lines of a file that is a recording, each checked. Throws `ERR_FILE*`, naming the file. */
export function* linesOfFile(file: string): Generator<Numbered, void, undefined> {
  let line = 0;
  try {
    for (const entry of readRecording(piecesOf(file))) yield { line: (line += 1), entry };
  } catch (error) {
    throw inFile(file, error);
  }
}

/** The bytes of a file in pieces, which hold until the next; of `given`, if it is open already. Throws `ERR_FILE`. */
export function* piecesOf(file: string, given?: number): Generator<Uint8Array> {
  const bytes = Buffer.alloc(PIECE);
  const fd = given ?? onFile(file, () => openSync(file, 'r'));
  try {
    for (;;) {
      const length = onFile(file, () => readSync(fd, bytes));
      if (length === 0) return;
      yield bytes.subarray(0, length);
    }
  } finally {
    if (given === undefined) closeSync(fd);
  }
}

/** What a recording says of itself. */
export function headerOf(file: string): RecordingHeader {
  for (const { entry } of linesOfFile(file)) {
    if (entry.kind === 'recording') return entry;
    break;
  }
  throw new ShimError('ERR_FILE_CORRUPT', `${file}: recording: its first line is cut`, { errno: 'EINVAL' });
}

/** A call of whoever used a device: of a VMM under `run`, or of `save` and `restore`. */
export interface RecordedStep {
  readonly line: number;
  readonly call: DeviceCall;
  readonly data: DataBytes | undefined;
}

/** The step that an entry is, if it is one on this device. */
export function stepOf({ line, entry }: Numbered, device: string, header: RecordingHeader): RecordedStep | undefined {
  if (entry.kind === 'access') {
    const { call, data } = entry;
    return entry.device === device && call.protocol !== 'vfio' ? { line, call, data } : undefined;
  }
  // under `run`, a call on a driver that no access waits for is not the VMM's
  if (entry.kind !== 'driver' || isOfVmm(header) || entry.device !== device) return undefined;
  return { line, call: entry.call, data: entry.data };
}

/** The file of the migration data beside a recording. */
export class DataFile implements Disposable {
  readonly #name: string;
  readonly #fd: number;

  constructor(recording: string) {
    this.#name = `${recording}.data`;
    this.#fd = onFile(this.#name, () => openSync(this.#name, 'r'));
  }

  get size(): number {
    return fstatSync(this.#fd).size;
  }

  /** The bytes that a line tells of. Throws `ERR_FILE_CORRUPT` if the file has others. */
  read({ bytes, sha256, at }: DataBytes, line: number): Uint8Array {
    if (at === undefined) throw this.#corrupt(line, 'does not say where its data are');
    const { size } = this;
    if (bytes > size - at) throw this.#corrupt(line, `has ${bytes} bytes at ${at}, and the file has ${size}`);
    const found = Buffer.alloc(bytes);
    for (let done = 0; done < bytes;) {
      const length = onFile(this.#name, () => readSync(this.#fd, found, done, bytes - done, at + done));
      if (length === 0) throw this.#corrupt(line, 'is of a file that became shorter');
      done += length;
    }
    if (createHash('sha256').update(found).digest('hex') === sha256) return found;
    throw this.#corrupt(line, `has data with another hash than those at ${at}`);
  }

  #corrupt(line: number, why: string): ShimError {
    return new ShimError('ERR_FILE_CORRUPT', `${this.#name}: line ${line} of the recording ${why}`, {
      errno: 'EINVAL',
    });
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}
