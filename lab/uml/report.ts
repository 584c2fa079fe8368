// Prints what a job tells as the lab does, and ends as its checks did.
import { createInterface } from 'node:readline';

let passed = 0;
let failed = 0;
for await (const line of createInterface({ input: process.stdin })) {
  if (!line.startsWith('{"type":')) continue;
  const { type, job, name, ms, why, log, text } = JSON.parse(line);
  if (type === 'note') console.log(`# ${job}: ${text}`);
  if (type !== 'check') continue;
  if (why === undefined) passed += 1;
  else failed += 1;
  console.log(why === undefined ? `ok ${job}: ${name} ${ms} ms` : `not ok ${job}: ${name}: ${why}\n${log ?? ''}`);
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
