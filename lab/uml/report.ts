import { createInterface } from 'node:readline';
import type { CheckEvent, NoteEvent } from '../events.ts';
import { Report } from '../host/report.ts';

/** Prints what a job under user-mode Linux tells, among what its kernel says, and ends as its checks did. */

const report = new Report();
for await (const line of createInterface({ input: process.stdin })) {
  if (!line.startsWith('{"type":')) continue;
  const event = JSON.parse(line) as CheckEvent | NoteEvent;
  if (event.type === 'check') report.check(event);
  else report.note(event);
}
report.close();
process.exitCode = report.failed > 0 || report.passed === 0 ? 1 : 0;
