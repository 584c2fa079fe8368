import assert from 'node:assert/strict';
import { listen, migrateLive, startMigration, waitForMigration } from '../../src/vmm/migration.ts';
import { loadFromFile, migrateToFile } from '../../tools/vmm/migration-file.ts';
import { check } from './check.ts';
import { assertArrived, assertRuns, startBoth, startDestination, startSource, type End } from './pair.ts';

/** A migration from one VMM to another. */
export type Crossing = readonly [title: string, from: End, to: End];

/** Every migration has a pattern of its own in its device. */
const marks = { last: 0x21 };
const nextMark = (): number => (marks.last += 0x17);

/** Checks of live migrations: memory and device arrive as they were. */
export async function checkLive(crossings: readonly Crossing[]): Promise<void> {
  for (const [title, from, to] of crossings) {
    await check(`live, ${title}`, async (bed) => {
      const mark = nextMark();
      const { source, destination } = await startBoth(bed, from, to, mark);
      await migrateLive(source.vm, destination.vm, bed.path('migration'), { returnPath: true });
      await assertArrived(bed, source, destination, mark);
    });
  }
}

/** The same through files. */
export async function checkThroughFile(crossings: readonly Crossing[]): Promise<void> {
  for (const [title, from, to] of crossings) {
    await check(`through a file, ${title}`, async (bed) => {
      const mark = nextMark();
      const source = await startSource(bed, from, mark);
      await migrateToFile(source.vm, bed.path('state'));
      const destination = await startDestination(bed, to);
      await loadFromFile(destination.vm, bed.path('state'));
      await assertArrived(bed, source, destination, mark);
    });
  }
}

/** Checks of live migrations that the source's VMM refuses when they begin, with these words: the source goes on, its device as it was. */
export async function checkRefused(crossings: readonly Crossing[], words: RegExp): Promise<void> {
  for (const [title, from, to] of crossings) {
    await check(`refused by QEMU, ${title}`, async (bed) => {
      const mark = nextMark();
      const { source, destination } = await startBoth(bed, from, to, mark);
      await startMigration(source.vm, await listen(destination.vm, bed.path('migration')), { returnPath: true });
      await waitForMigration(source.vm, 'failed');
      assert.match(source.vm.child.stderr, words);
      await destination.vm.waitForExit();
      await assertRuns(source, mark);
    });
  }
}
