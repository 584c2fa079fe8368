import type { EndLine, RecordingLine } from '../../recording/format.ts';
import { VmmJudge, type Judgement } from '../../check/vmm/judge.ts';
import { failedWith } from '../../sys/libc.ts';
import type { Outlet } from '../../sys/outlet.ts';
import { messageOf, warn } from '../run/log.ts';
import { monotonic, type LineTaker } from './recorder-output.ts';

/** The line of JSON that `run --check` adds to the reports: what was found, and why no more was looked at, if that is so. */
export interface CheckReport {
  readonly check: Judgement & { readonly error?: string };
}

/** Judges the VMM by the lines as they come, and writes one line at the end. */
export class JudgeOutput implements LineTaker {
  readonly #outlet: Outlet;
  readonly #judge = new VmmJudge();
  #error: string | undefined;
  #waiting: Uint8Array = new Uint8Array(0);
  #isOpen = true;

  constructor(outlet: Outlet) {
    this.#outlet = outlet;
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  add(lines: Uint8Array): void {
    for (const text of Buffer.from(lines).toString().split('\n').slice(0, -1)) {
      this.#take(JSON.parse(text) as RecordingLine);
    }
  }

  #take(line: RecordingLine): void {
    if (this.#error !== undefined) return;
    try {
      this.#judge.take(line);
    } catch (error) {
      this.#error = messageOf(error);
    }
  }

  end(why: EndLine['why']): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#take({ kind: 'end', time: monotonic(), why });
    const error = this.#error === undefined ? {} : { error: this.#error };
    const report: CheckReport = { check: { ...this.#judge.judgement(), ...error } };
    this.#waiting = Buffer.from(`${JSON.stringify(report)}\n`);
  }

  flush(): boolean {
    while (this.#waiting.length > 0) {
      const written = this.#outlet.write(this.#waiting);
      if (failedWith(written, 'EAGAIN')) return true;
      if (written < 0) {
        warn('--check: nobody reads what was found');
        this.#waiting = new Uint8Array(0);
        return false;
      }
      this.#waiting = this.#waiting.subarray(written);
    }
    return false;
  }
}
