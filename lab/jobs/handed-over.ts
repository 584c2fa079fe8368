import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { check } from '../guest/check.ts';
import { imprintNatively, pathOf, printed, saveNatively, startV1Heir } from '../guest/client.ts';
import { Mtty } from '../guest/mtty.ts';

/** A device that one run hands to another, as a VMM does with its successor (QEMU's cpr-transfer); both runs serve. */

const RUNNING = 1;
const PRE_COPY = 3;

await check('a device of another run is not taken for one of its own, and both are saved whole', async (bed) => {
  const [own, lent] = [Mtty.create(), Mtty.create()];
  await imprintNatively(own, 0xc6);
  await imprintNatively(lent, 0x35);
  const expected = [saveNatively(own), saveNatively(lent)];
  assert.notDeepEqual(expected[0], expected[1]);

  const lender = startV1Heir(bed, 'lender', ['lend', pathOf(lent)]);
  const { pid, fd, state } = await printed<{ pid: number; fd: number; state: number }>(lender);
  assert.equal(state, RUNNING);
  const files = [bed.path('own'), bed.path('lent')] as const;
  const heir = startV1Heir(bed, 'heir', ['inherit', files[0], pathOf(own), files[1], String(pid), String(fd)]);
  assert.deepEqual((await printed<{ states: number[] }>(heir)).states, [PRE_COPY, RUNNING]);
  assert.equal(lender.exit, undefined, lender.stderr);
  assert.deepEqual(
    files.map((file) => readFileSync(file)),
    expected,
  );
  process.kill(pid, 'SIGTERM');
  await Promise.all([lender.exited, heir.exited]);
  assert.deepEqual(heir.exit, { code: 0, signal: null }, heir.stderr);
});
