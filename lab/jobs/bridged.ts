import { migrateLive } from '../../src/vmm/migration.ts';
import { loadFromFile, migrateToFile } from '../../tools/vmm/migration-file.ts';
import { check } from '../guest/check.ts';
import { assertArrived, NEW, OLD, ROUND, startBoth, startDestination, startSource, type End } from '../guest/pair.ts';

/** Unmodified old and new VMMs migrate a device of a real v2 driver, to each other and back. */

const AUTO: End = { qemu: '7.2', shim: [] };

const pairs: readonly (readonly [title: string, from: End, to: End])[] = [
  ['7.2 under run to 7.2 under run', OLD, OLD],
  ['7.2 under run to native 10.0', OLD, NEW],
  ['native 10.0 to 7.2 under run', NEW, OLD],
  ['10.0 under run --present v2 --round-trip to native 10.0', ROUND, NEW],
  ['native 10.0 to 10.0 under run --present v2 --round-trip', NEW, ROUND],
  ['7.2 under run, both protocols shown, to 10.0 under the same', AUTO, { qemu: '10.0', shim: [] }],
];

let seed = 0x21;
for (const [title, from, to] of pairs) {
  await check(`live, ${title}`, async (bed) => {
    const mark = (seed += 0x17);
    const { source, destination } = await startBoth(bed, from, to, mark);
    await migrateLive(source.vm, destination.vm, bed.path('migration'), { returnPath: true });
    await assertArrived(bed, source, destination, mark);
  });
  await check(`through a file, ${title}`, async (bed) => {
    const mark = (seed += 0x17);
    const source = await startSource(bed, from, mark);
    await migrateToFile(source.vm, bed.path('state'));
    const destination = await startDestination(bed, to);
    await loadFromFile(destination.vm, bed.path('state'));
    await assertArrived(bed, source, destination, mark);
  });
}
