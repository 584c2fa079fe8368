import assert from 'node:assert/strict';
import { migrateLive, startMigration, waitForMigration } from '../../src/vmm/migration.ts';
import type { TestBed } from '../../tools/vmm/test-bed.ts';
import { check, note } from '../guest/check.ts';
import { Mtty } from '../guest/mtty.ts';
import { assertDevices, assertGoesOn, OLD, startDestination, startSource } from '../guest/pair.ts';
import { assertUnserved } from '../guest/serving.ts';
import { assertNoLeak, describe, usageOf, type Usage } from '../guest/usage.ts';

/** Long: many migrations, after which nothing is left of them. */

const MIGRATIONS = 50;
/** By then caches are warm, and programs have the memory that they need. */
const WARM = 10;

/** Where files of a check are made. */
const directories = (bed: TestBed): string[] => ['/tmp', '/dev/shm', '/run', bed.directory];

function compare(warm: Usage | undefined, end: Usage): void {
  assert.ok(warm !== undefined);
  note(`after ${WARM}: ${describe(warm)}, after ${MIGRATIONS}: ${describe(end)}`);
  assertNoLeak(warm, end);
}

await check(
  `${MIGRATIONS} migrations back and forth between two pairs of devices`,
  async (bed) => {
    const here = [Mtty.create('mtty-2'), Mtty.create('mtty-1')];
    const there = [Mtty.create('mtty-2'), Mtty.create('mtty-1')];
    let current = await startSource(bed, OLD, 0x71, 'vm-0', here);
    let warm: Usage | undefined;
    for (let count = 1; count <= MIGRATIONS; count += 1) {
      const name = `vm-${count % 2}`;
      const next = await startDestination(bed, OLD, name, count % 2 === 1 ? there : here);
      await migrateLive(current.vm, next.vm, bed.path('migration'), { returnPath: true });
      await assertGoesOn(next, 0x71);
      await current.vm.quit();
      await assertUnserved(current.vm.name);
      current = next;
      if (count === WARM) warm = usageOf(directories(bed), name);
      if (count % 10 === 0) note(`${count} migrations: ${describe(usageOf(directories(bed), name))}`);
    }
    compare(warm, usageOf(directories(bed), current.vm.name));
  },
  { ms: 600_000 },
);

await check(
  `${MIGRATIONS} migrations of one VM, which one supervisor serves`,
  async (bed) => {
    const source = await startSource(bed, OLD, 0x17);
    let warm: Usage | undefined;
    for (let count = 1; count <= MIGRATIONS; count += 1) {
      await startMigration(source.vm, 'exec:cat > /dev/null');
      await waitForMigration(source.vm, 'completed');
      await source.vm.cont();
      await source.vm.waitForStatus('running');
      if (count === WARM) warm = usageOf(directories(bed), 'source');
    }
    await assertDevices(source, 0x17);
    compare(warm, usageOf(directories(bed), 'source'));
  },
  { ms: 200_000 },
);
