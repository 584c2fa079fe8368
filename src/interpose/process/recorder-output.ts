import { errnoName } from '../../abi/errno.ts';
import type { EndLine, RecordingLine } from '../../recording/format.ts';
import { lineOf } from '../../recording/line.ts';
import { TraceText } from '../../recording/text.ts';
import { failedWith } from '../../sys/libc.ts';
import type { Outlet } from '../../sys/outlet.ts';
import { warn } from '../run/log.ts';

const NEWLINE = 0x0a;
/** What the line that says why a recording ends has to have, in bytes. */
const LAST_LINE = 200;

/** Who gets the lines of a recording. */
export interface LineTaker {
  /** False once it takes no more lines. */
  readonly isOpen: boolean;
  /** Takes complete lines, which stay as they are until flush() has left nothing. */
  add(lines: Uint8Array): void;
  end(why: EndLine['why']): void;
  /** Writes what is taken now; true if something is left. */
  flush(): boolean;
}

/** A file that gets a recording: what is not taken at once waits here. */
export class RecorderOutput implements LineTaker {
  readonly #option: string;
  readonly #outlet: Outlet;
  readonly #limit: number;
  readonly #format: (lines: Uint8Array) => Uint8Array;
  #waiting: Uint8Array = new Uint8Array(0);
  /** Bytes that it has got, and those that wait. */
  #bytes = 0;
  #isOpen = true;

  /** `option` says what it is for, to who reads the log. */
  constructor(option: '--record' | '--trace', outlet: Outlet, limit: number) {
    this.#option = option;
    this.#outlet = outlet;
    this.#limit = limit;
    this.#format = option === '--record' ? (lines) => lines : asText(new TraceText());
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** As many as there is room for. */
  add(lines: Uint8Array): void {
    if (!this.#isOpen) return;
    const bytes = this.#format(lines);
    const room = this.#limit - LAST_LINE - this.#bytes;
    if (bytes.length <= room) {
      this.#append(bytes);
      return;
    }
    this.#append(bytes.subarray(0, bytes.subarray(0, Math.max(room, 0)).lastIndexOf(NEWLINE) + 1));
    warn(`${this.#option}: ${this.#limit} bytes are the limit: nothing more is recorded`);
    this.end('limit');
  }

  end(why: EndLine['why']): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#append(this.#format(Buffer.from(lineOf({ kind: 'end', time: monotonic(), why }))));
  }

  #append(bytes: Uint8Array): void {
    this.#bytes += bytes.length;
    this.#waiting = this.#waiting.length === 0 ? bytes : Buffer.concat([this.#waiting, bytes]);
  }

  flush(): boolean {
    while (this.#waiting.length > 0) {
      const written = this.#outlet.write(this.#waiting);
      if (failedWith(written, 'EAGAIN')) return true;
      if (written < 0) {
        this.#fail(errnoName(-written) ?? `errno ${-written}`);
        return false;
      }
      this.#waiting = this.#waiting.subarray(written);
    }
    return false;
  }

  #fail(why: string): void {
    this.#waiting = new Uint8Array(0);
    this.#isOpen = false;
    warn(`${this.#option}: the file cannot be written (${why}), nothing more is recorded`);
  }
}

function asText(printer: TraceText): (lines: Uint8Array) => Uint8Array {
  return (lines) => {
    const texts = Buffer.from(lines).toString().split('\n').slice(0, -1);
    return Buffer.from(texts.map((text) => printer.lineOf(JSON.parse(text) as RecordingLine)).join(''));
  };
}

/** Microseconds of `CLOCK_MONOTONIC`. */
export function monotonic(): number {
  return Number(process.hrtime.bigint() / 1000n);
}
