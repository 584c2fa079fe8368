import { writeSync } from 'node:fs';
import type { Command } from 'commander';
import { RecorderOutput } from '../interpose/process/recorder-output.ts';
import type { EndLine, RecordingHeader } from '../recording/format.ts';
import { lineOf } from '../recording/line.ts';
import { Outlet } from '../sys/outlet.ts';
import type { LineSink } from '../vfio-user/watch/message-recorder.ts';
import { say } from './output.ts';
import { openRecording, openTrace, recordingLimit, type RecordingOptions } from './recording.ts';

/** What of a service is recorded, and where. */
export interface ServiceRecordingOptions extends RecordingOptions {
  readonly trace?: string;
}

/** Adds the options of a recording to a command that serves. */
export function addServiceRecording(command: Command): Command {
  return command
    .option(
      '--record <file>',
      'record each command of the client, with the calls on the driver that it causes, as lines of JSON',
    )
    .option('--record-data', 'keep the migration data too, in FILE.data')
    .option('--record-limit <size>', 'how large a file of the recording may become', '256M')
    .option('--trace <file>', 'write the same for people, a line per command; - is stderr');
}

/** What was given of them. Throws `ERR_ARGUMENT`. */
export function recordingAsked(options: ServiceRecordingOptions): ServiceRecordingOptions {
  const { record, recordData, recordLimit, trace } = options;
  recordingLimit(options); // a wrong command line is known at once
  return {
    recordLimit,
    ...(record !== undefined && { record }),
    ...(recordData !== undefined && { recordData }),
    ...(trace !== undefined && { trace }),
  };
}

/** So many characters of lines are written at once, and after so many milliseconds what there is. */
const TOGETHER = 65_536;
const PAUSE = 50;
/** So many wait for whoever reads them. */
const MOST = 8 * 2 ** 20;

/**
 * The recording of `serve` or `proxy`. No client waits for who reads it: if that takes too long, lines are lost, and the recording ends. Its
 * files are closed by the end of the process.
 */
export class ServiceRecording implements LineSink {
  readonly #outputs: readonly RecorderOutput[];
  readonly #data: number | undefined;
  readonly #limit: number;
  #dataBytes = 0;
  #text = '';
  /** When what is there is to be written. */
  #due = Number.POSITIVE_INFINITY;

  private constructor(outputs: readonly RecorderOutput[], data: number | undefined, limit: number) {
    this.#outputs = outputs;
    this.#data = data;
    this.#limit = limit;
  }

  /** Opens the files that are asked for; `undefined` if none is. Throws `ERR_ARGUMENT`. */
  static begin(options: ServiceRecordingOptions, header: () => RecordingHeader): ServiceRecording | undefined {
    const { record, recordData } = openRecording(options);
    const trace = openTrace(options.trace);
    if (record === undefined && trace === undefined) return undefined;
    const limit = recordingLimit(options);
    const outputs = [
      ...(record === undefined ? [] : [new RecorderOutput('--record', new Outlet(record), limit)]),
      ...(trace === undefined ? [] : [new RecorderOutput('--trace', new Outlet(trace), limit)]),
    ];
    const recording = new ServiceRecording(outputs, recordData, limit);
    recording.add(lineOf(header()));
    recording.#write();
    return recording;
  }

  get #isOpen(): boolean {
    return this.#outputs.some(({ isOpen }) => isOpen);
  }

  add(line: string): void {
    if (!this.#isOpen) return;
    if (this.#text === '') this.#due = performance.now() + PAUSE;
    this.#text += line;
    if (this.#text.length >= TOGETHER) this.#write();
  }

  keep(bytes: Uint8Array): number | undefined {
    if (this.#data === undefined || !this.#isOpen) return undefined;
    const at = this.#dataBytes;
    if (at + bytes.length > this.#limit) {
      this.#end('limit', `--record-data: ${this.#limit} bytes are the limit: nothing more is recorded`);
      return undefined;
    }
    try {
      for (let done = 0; done < bytes.length;) done += writeSync(this.#data, bytes, done);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.#end('lost', `--record-data: the file cannot be written (${why}), nothing more is recorded`);
      return undefined;
    }
    this.#dataBytes += bytes.length;
    return at;
  }

  work(now: number): number {
    if (now >= this.#due) this.#write();
    return this.#due;
  }

  /** The service has ended. Whoever reads gets what it takes at once. */
  end(): void {
    this.#end('ended');
  }

  #end(why: EndLine['why'], message?: string): void {
    if (!this.#isOpen) return;
    this.#write();
    for (const output of this.#outputs) output.end(why);
    this.#flush();
    this.#due = Number.POSITIVE_INFINITY;
    if (message !== undefined) say(`vfio-shim: ${message}\n`);
  }

  /** Writes as much as is taken; true if something is left. */
  #flush(): boolean {
    let isLeft = false;
    for (const output of this.#outputs) if (output.flush()) isLeft = true;
    return isLeft;
  }

  #write(): void {
    const isStuck = this.#flush();
    if (isStuck && this.#text.length < MOST) {
      this.#due = performance.now() + PAUSE;
      return;
    }
    const bytes = Buffer.from(this.#text);
    this.#text = '';
    this.#due = Number.POSITIVE_INFINITY;
    if (isStuck) {
      this.#end('lost', 'the recording is ended: lines were lost, as nobody has taken them in time');
      return;
    }
    for (const output of this.#outputs) output.add(bytes);
    if (this.#flush()) this.#due = performance.now() + PAUSE;
  }
}
