import { ci } from '../../tools/vmm/binaries.ts';
import type { CheckEvent, NoteEvent } from '../events.ts';

/** Prints how checks went, and counts. */
export class Report {
  passed = 0;
  failed = 0;
  skipped = 0;

  check({ job, name, ms, why, log }: CheckEvent): void {
    if (why === undefined) {
      this.passed++;
      console.log(`ok ${job}: ${name} ${ms} ms`);
      return;
    }
    this.failed++;
    console.log(`not ok ${job}: ${name}: ${why.trim()}`);
    this.quote(log ?? '');
  }

  note({ job, text }: NoteEvent): void {
    console.log(`# ${job}: ${text}`);
  }

  /** A job whose guest broke or did not come to its end. */
  fail(job: string, why: string): void {
    this.check({ type: 'check', job, name: 'the guest', ms: 0, why });
  }

  /** Jobs whose guest is not to be had: they are skipped, and fail in CI. */
  unavailable(jobs: readonly string[], why: string): void {
    for (const job of jobs) {
      if (ci) this.fail(job, why);
      else this.#skip(job, why);
    }
  }

  #skip(job: string, why: string): void {
    this.skipped++;
    console.log(`skipped ${job}: ${why}`);
  }

  quote(log: string): void {
    if (log.trim() !== '') console.log(log.trim().replaceAll(/^/gm, '  | '));
  }

  close(): void {
    console.log(`${this.passed} passed, ${this.failed} failed, ${this.skipped} skipped`);
  }
}
