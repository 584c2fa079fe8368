import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { release } from 'node:os';
import { CLI } from '../../tools/vmm/cli.ts';
import { check, note } from '../guest/check.ts';

/** Long, as it takes another image, and aarch64 is emulated slowly: what differs by processor, and by the size of a page. */

const pageSize = Number(execFileSync('getconf', ['PAGESIZE'], { encoding: 'utf8' }));
note(`Linux ${release()} of ${process.arch}, pages of ${pageSize} bytes, Node ${process.version}`);

await check('doctor finds nothing that run lacks', async (bed) => {
  const child = bed.spawn([process.execPath, CLI, 'doctor', '--json']);
  const exit = await child.exited;
  note(child.stdout);
  assert.deepEqual(exit, { code: 0, signal: null }, child.stdout);
});

await check('the demo migrates a device between small VMMs', async (bed) => {
  const child = bed.spawn([process.execPath, CLI, 'demo', '--no-qemu']);
  const exit = await child.exited;
  note(child.stdout);
  assert.deepEqual(exit, { code: 0, signal: null }, child.stderr);
});
