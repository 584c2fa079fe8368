import { migrateLive } from '../../src/vmm/migration.ts';
import type { QemuVersion } from '../../tools/vmm/binaries.ts';
import { migrateToFile, loadFromFile } from '../../tools/vmm/migration-file.ts';
import { expectArrived, startPlainSource, startPlainVm } from '../../tools/vmm/plain.ts';
import { check } from '../guest/check.ts';

/** The VMMs migrate to each other where no VFIO device is involved, so that what fails with one is about the device. */

const ROUTES: readonly (readonly [QemuVersion, QemuVersion])[] = [
  ['7.2', '10.0'],
  ['10.0', '7.2'],
];

for (const [from, to] of ROUTES) {
  await check(`a VM without a VFIO device migrates from QEMU ${from} to ${to}`, async (bed) => {
    const { source, ...mark } = await startPlainSource(bed, { qemu: from });
    const destination = await startPlainVm(bed, 'destination', { qemu: to, incoming: true });
    await migrateLive(source, destination, bed.path('migration'), { returnPath: true });
    await expectArrived(destination, mark);
  });

  await check(`the same through a file, from QEMU ${from} to ${to}`, async (bed) => {
    const { source, ...mark } = await startPlainSource(bed, { qemu: from });
    await migrateToFile(source, bed.path('state'));
    await source.quit();
    const destination = await startPlainVm(bed, 'destination', { qemu: to, incoming: true });
    await loadFromFile(destination, bed.path('state'));
    await expectArrived(destination, mark);
  });
}
