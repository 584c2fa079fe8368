import assert from 'node:assert/strict';
import { killHard } from '../../src/vmm/child.ts';
import { CRAWL, listen, migrateLive, startMigration, waitForMigration } from '../../src/vmm/migration.ts';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import { check } from '../guest/check.ts';
import {
  assertArrived,
  assertRuns,
  OLD,
  ROUND,
  startBoth,
  startDestination,
  startSource,
  type End,
  type LabVm,
} from '../guest/pair.ts';
import { RawDevice, type StateName } from '../guest/raw-device.ts';
import { assertUnserved } from '../guest/serving.ts';
import { traced, waitForAsked } from '../guest/trace.ts';

/** VMMs that are killed in the middle: their devices, and those who were to hear from them. */

const STALE = /an earlier user left it in a state other than RUNNING, it is reset/;

/** Kills a VMM; its processes end with it, and its device stays in this state. */
async function kill({ vm, mttys }: LabVm, left: StateName): Promise<void> {
  killHard(vm.child.pid ?? 0);
  assert.deepEqual(await vm.waitForExit(), { code: null, signal: 'SIGKILL' });
  await assertUnserved(vm.name);
  for (const mtty of mttys) {
    using device = new RawDevice(mtty);
    assert.equal(device.state(), left);
  }
}

/** A pair in a migration that will not get anywhere, with the devices in their states for it. */
async function startCrawl(
  bed: TestBed,
  end: End,
  seed: number,
  state: StateName,
): Promise<{ source: LabVm; destination: LabVm }> {
  const [from, to] = [traced(bed, end, 'source'), traced(bed, end, 'destination')];
  const { source, destination } = await startBoth(bed, from, to, seed);
  // QEMU 7.2 has the device of a paused VM in stop-and-copy from the beginning
  if (state === 'STOP_COPY') await source.vm.stop();
  const uri = await listen(destination.vm, bed.path('migration'));
  await startMigration(source.vm, uri, { parameters: CRAWL, returnPath: true });
  await waitForAsked(bed, 'source', `SET MIG_DEVICE_STATE ${state}`);
  await waitForAsked(bed, 'destination', 'SET MIG_DEVICE_STATE RESUMING');
  return { source, destination };
}

await check('killed while it resumes: the source goes on, and migrates to a new VM with that device', async (bed) => {
  const { source, destination } = await startCrawl(bed, OLD, 0x39, 'PRE_COPY');
  await kill(destination, 'RESUMING');
  await waitForMigration(source.vm, 'failed');
  await assertRuns(source, 0x39);
  const again = await startDestination(bed, OLD, 'again', destination.mttys);
  await migrateLive(source.vm, again.vm, bed.path('again.migration'), { returnPath: true });
  await assertArrived(bed, source, again, 0x39);
  assert.match(again.vm.child.stderr, STALE);
});

const phases: readonly (readonly [title: string, end: End, state: StateName])[] = [
  ['7.2 under run, killed in pre-copy', OLD, 'PRE_COPY'],
  ['7.2 under run, killed in stop-and-copy', OLD, 'STOP_COPY'],
  ['10.0 under run --round-trip, killed in pre-copy', ROUND, 'PRE_COPY'],
];

for (const [title, end, state] of phases) {
  await check(`${title}: the destination ends, and a new VM with that device migrates`, async (bed) => {
    const { source, destination } = await startCrawl(bed, end, 0x1b, state);
    await kill(source, state);
    assert.deepEqual(await destination.vm.waitForExit(), { code: 1, signal: null });
    await assertUnserved('destination');
    const again = await startSource(bed, end, 0xe5, 'again', source.mttys);
    assert.match(again.vm.child.stderr, STALE);
    const other = await startDestination(bed, end, 'other', destination.mttys);
    await migrateLive(again.vm, other.vm, bed.path('again.migration'), { returnPath: true });
    await assertArrived(bed, again, other, 0xe5);
  });
}
