import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import { imprintNatively, printed, saveNatively, startV1Heir } from './client.ts';
import { Mtty } from './mtty.ts';

const RUNNING = 1;
const PRE_COPY = 3;

/** How a device is opened: what openKernelDevice() takes. */
export type PathOf = (mtty: Mtty) => string;

export const byCdev: PathOf = ({ cdev }) => cdev;

/**
 * A run hands a device to another that has a device of its own, as a VMM does with its successor (QEMU's cpr-transfer). Both runs
 * serve: the one is in pre-copy while the other is saved, and both are saved whole.
 */
export async function assertHandedOver(bed: TestBed, ownPath: PathOf, lentPath: PathOf): Promise<void> {
  const [own, lent] = [Mtty.create(), Mtty.create()];
  await imprintNatively(own, 0xc6);
  await imprintNatively(lent, 0x35);
  const expected = [saveNatively(own), saveNatively(lent)];
  assert.notDeepEqual(expected[0], expected[1]);

  const lender = startV1Heir(bed, 'lender', ['lend', lentPath(lent)]);
  const { pid, fd, state } = await printed<{ pid: number; fd: number; state: number }>(lender);
  assert.equal(state, RUNNING);
  const files = [bed.path('own'), bed.path('lent')] as const;
  const heir = startV1Heir(bed, 'heir', ['inherit', files[0], ownPath(own), files[1], String(pid), String(fd)]);
  assert.deepEqual((await printed<{ states: number[] }>(heir)).states, [PRE_COPY, RUNNING]);
  assert.equal(lender.exit, undefined, lender.stderr);
  assert.deepEqual(
    files.map((file) => readFileSync(file)),
    expected,
  );
  process.kill(pid, 'SIGTERM');
  await Promise.all([lender.exited, heir.exited]);
  assert.deepEqual(heir.exit, { code: 0, signal: null }, heir.stderr);
}
