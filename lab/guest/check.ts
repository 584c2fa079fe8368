import { writeSync } from 'node:fs';
import { within } from '../../src/vmm/deadline.ts';
import { TestBed } from '../../tools/vmm/test-bed.ts';
import { REPORT_FD, type CheckEvent, type NoteEvent } from '../events.ts';
import { Mtty } from './mtty.ts';

/** The name of the running job. */
export const job = process.env['VFIO_SHIM_LAB_JOB'] ?? '';

/** Far more than any check needs, and it is waited for with patience. */
const TIMEOUT_MS = 80_000;

/**
 * One named check of a job: runs `body` with a test bed of its own and reports how it went. It fails if the body throws, takes
 * too long, or leaves processes behind. It removes the devices that the body has created. A job goes on after a failed check, except
 * after one that took too long, since its body still runs.
 */
export async function check(
  name: string,
  body: (bed: TestBed) => Promise<void> | void,
  { ms = TIMEOUT_MS } = {},
): Promise<void> {
  const bed = new TestBed();
  const kept = Mtty.all();
  const begin = performance.now();
  let late = false;
  const failures: string[] = [];
  try {
    await within(Promise.resolve(body(bed)), ms, () => ((late = true), 'the check'));
  } catch (error) {
    failures.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
  const elapsed = Math.round(performance.now() - begin);
  const story = failures.length > 0 ? bed.describe() : '';
  const left = await bed.cleanUp(15_000);
  if (left.length > 0) failures.push(`processes outlived the check: ${left.join('; ')}`);
  if (process.getuid?.() === 0) Mtty.removeAllBut(kept); // an ordinary user's are removed after the job
  const failed = failures.length > 0;
  report({ type: 'check', job, name, ms: elapsed, ...(failed ? { why: failures.join('\n'), log: story } : {}) });
  if (failed) process.exitCode = 1;
  if (late) process.exit();
}

/** Tells something that is no verdict: what was measured, or how far a long check has come. */
export function note(text: string): void {
  report({ type: 'note', job, text });
}

function report(event: CheckEvent | NoteEvent): void {
  writeSync(REPORT_FD, `${JSON.stringify(event)}\n`);
}
