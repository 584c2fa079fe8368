import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { killHard } from '../../src/vmm/child.ts';
import { CRAWL, FULL_SPEED, listen, setParameters, startMigration, waitForMigration } from '../../src/vmm/migration.ts';
import { assertHarried, imprintNatively, runV1Client, saveNatively } from '../guest/client.ts';
import { check } from '../guest/check.ts';
import { migrateHarassed, successors } from '../guest/harass.ts';
import { Mtty } from '../guest/mtty.ts';
import {
  assertDevices,
  assertGoesOn,
  assertRuns,
  imprintDevices,
  OLD,
  ROUND_SMALL,
  startBoth,
  startEnd,
  startSource,
  type End,
} from '../guest/pair.ts';
import { killSupervisor, serving } from '../guest/serving.ts';
import { startSink } from '../guest/sink.ts';
import { traced, waitForAsked } from '../guest/trace.ts';

/** Supervisors that are killed, with a real driver in the middle of a migration. */

const ends: readonly (readonly [title: string, end: End])[] = [
  ['7.2 under run', OLD],
  ['10.0 under run --round-trip', ROUND_SMALL],
];

for (const [title, end] of ends) {
  await check(`${title}: killed before, in pre-copy, while resuming and in stop-and-copy`, async (bed) => {
    const both = await startBoth(bed, traced(bed, end, 'source'), traced(bed, end, 'destination'), 0x47);
    const [source, destination] = [both.source.vm, both.destination.vm];
    const uri = await listen(destination, bed.path('migration'));
    await killSupervisor('source');
    await startMigration(source, uri, { parameters: CRAWL, returnPath: true });
    await waitForAsked(bed, 'source', 'SET MIG_DEVICE_STATE PRE_COPY');
    await killSupervisor('source');
    await waitForAsked(bed, 'destination', 'SET MIG_DEVICE_STATE RESUMING');
    await killSupervisor('destination');
    await source.stop();
    await waitForAsked(bed, 'source', 'SET MIG_DEVICE_STATE STOP_COPY');
    await killSupervisor('source');
    await setParameters(source, FULL_SPEED);
    await waitForMigration(source, 'completed');
    await waitForMigration(destination, 'completed');
    await assertGoesOn(both.destination, 0x47);
    assert.deepEqual([successors(source), successors(destination)], [3, 1]);
  });
}

await check('7.2 under run: killed again and again, at both ends', async (bed) => {
  await migrateHarassed(bed, OLD, 4, 0x8c);
});

await check(
  'killed before each register access of a v1 program: it saves what an undisturbed one does',
  async (bed) => {
    const from = Mtty.create();
    await imprintNatively(from, 0x95);
    const [calm, harried] = [bed.path('calm'), bed.path('harried')];
    await runV1Client(bed, 'calm', ['save', calm], from);
    const saved = await runV1Client(bed, 'harried', ['save', harried, '--interrupt'], from);
    assertHarried(saved);
    assert.deepEqual(readFileSync(harried), readFileSync(calm));
    assert.deepEqual(readFileSync(harried), saveNatively(from));
  },
);

await check('killed with their keeper: the VM and its device go on, a migration fails', async (bed) => {
  const source = await startSource(bed, OLD, 0x66);
  for (const pid of serving('keeper-main', 'source')) killHard(pid);
  await killSupervisor('source');
  await assertRuns(source, 0x66);
  await imprintDevices(source, 0x12);
  using sink = await startSink(bed.path('sink'));
  await startMigration(source.vm, sink.uri);
  await waitForMigration(source.vm, 'failed');
  await assertRuns(source, 0x12);
  assert.match(source.vm.child.stderr, /Function not implemented/);
  // the device is not lost with it
  killHard(source.vm.child.pid ?? 0);
  await source.vm.waitForExit();
  const next = await startEnd(bed, 'next', OLD, {}, source.mttys);
  await next.vm.waitForFirmware();
  await assertDevices(next, 0x12);
});
