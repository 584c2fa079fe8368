import { openSync, writeSync } from 'node:fs';
import { ANSWERED, CONTINUE, type Call } from './call.ts';

/** `--trace`: a line of JSON for each trapped call that was not left to the kernel, and for what drivers of it were asked. */
export class Trace {
  readonly #fd: number;

  constructor(file: string) {
    this.#fd = openSync(file, 'a');
  }

  write(call: Call, value: number, error: number): void {
    if (value === CONTINUE) return;
    const args = [0, 1, 2, 3, 4, 5].map((n) => `0x${call.arg(n).toString(16)}`);
    const result = value === ANSWERED ? 'fd' : value;
    const line = { time: Date.now(), tid: call.tid, nr: call.nr, args, value: result, error };
    writeSync(this.#fd, `${JSON.stringify(line)}\n`);
  }

  /** What the driver of a bridged device was asked while a call was served, and its answer: bytes, a number, or an errno. */
  asked(device: string, what: string, answer: number | string): void {
    writeSync(this.#fd, `${JSON.stringify({ time: Date.now(), device, driver: what, answer })}\n`);
  }
}
