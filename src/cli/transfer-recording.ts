import { createHash } from 'node:crypto';
import { writeSync } from 'node:fs';
import type { DeviceEvent } from '../device/device-event.ts';
import type { MigratableDevice } from '../device/migratable.ts';
import { microseconds } from '../device/observe.ts';
import type { DataBytes, EndLine, RecordingLine } from '../recording/format.ts';
import { deviceCall, lineOf } from '../recording/line.ts';
import { openRecording, recordingHeader, recordingLimit } from './recording.ts';
import type { TransferOrder } from './transfer-control.ts';

/** So many bytes of lines are written at once. */
const TOGETHER = 65_536;
/** What the last line has to have. */
const LAST_LINE = 200;

/** The recording of `save` or `restore`: every call on the device. If it cannot be written, that is said, and the transfer goes on. */
export class TransferRecording {
  readonly #device: string;
  readonly #fd: number;
  readonly #dataFd: number | undefined;
  readonly #limit: number;
  readonly #fails: (why: string) => void;
  #lines: string[] = [];
  #waiting = 0;
  #bytes = 0;
  #dataBytes = 0;
  #isOpen = true;

  constructor(device: string, fd: number, dataFd: number | undefined, limit: number, fails: (why: string) => void) {
    this.#device = device;
    this.#fd = fd;
    this.#dataFd = dataFd;
    this.#limit = limit;
    this.#fails = fails;
  }

  add(line: RecordingLine): void {
    if (!this.#isOpen) return;
    const text = lineOf(line);
    const length = Buffer.byteLength(text);
    if (line.kind !== 'end' && this.#bytes + length > this.#limit - LAST_LINE) {
      this.end('limit');
      this.#fails(`--record: ${this.#limit} bytes are the limit: nothing more is recorded`);
      return;
    }
    this.#lines.push(text);
    this.#bytes += length;
    this.#waiting += length;
    if (this.#waiting >= TOGETHER) this.#flush();
  }

  call(event: DeviceEvent, bytes: Uint8Array | undefined): void {
    if (!this.#isOpen) return;
    const data = bytes === undefined || bytes.length === 0 ? undefined : this.#data(bytes);
    const line = { kind: 'driver', time: event.time, device: this.#device, call: deviceCall(event) } as const;
    this.add(data === undefined ? line : { ...line, data });
  }

  end(why: EndLine['why'] = 'ended'): void {
    if (!this.#isOpen) return;
    this.add({ kind: 'end', time: microseconds(), why });
    this.#flush();
    this.#isOpen = false;
  }

  #data(bytes: Uint8Array): DataBytes | undefined {
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    if (this.#dataFd === undefined) return { bytes: bytes.length, sha256 };
    const at = this.#dataBytes;
    if (at + bytes.length > this.#limit) {
      this.end('limit');
      this.#fails(`--record-data: ${this.#limit} bytes are the limit: nothing more is recorded`);
      return undefined;
    }
    this.#write(this.#dataFd, bytes);
    this.#dataBytes += bytes.length;
    return { bytes: bytes.length, sha256, at };
  }

  #flush(): void {
    const text = Buffer.from(this.#lines.join(''));
    this.#lines = [];
    this.#waiting = 0;
    this.#write(this.#fd, text);
  }

  #write(fd: number, bytes: Uint8Array): void {
    try {
      for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done);
    } catch (error) {
      this.#isOpen = false;
      const why = error instanceof Error ? error.message : String(error);
      this.#fails(`--record: the file cannot be written (${why}), nothing more is recorded`);
    }
  }
}

/** Begins the recording that an order asks for, if it does. */
export function beginTransferRecording(
  { command, recording }: TransferOrder,
  device: string,
  { protocol }: MigratableDevice,
  fails: (why: string) => void,
): TransferRecording | undefined {
  const { record, recordData } = openRecording(recording);
  if (record === undefined) return undefined;
  const begun = new TransferRecording(device, record, recordData, recordingLimit(recording), fails);
  const devices = [{ name: device, device, protocol }];
  begun.add(recordingHeader({ command, present: null, devices, options: {} }));
  return begun;
}
