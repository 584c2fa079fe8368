import { migrateLive } from '../../src/vmm/migration.ts';
import { check } from '../guest/check.ts';
import { checkLive, checkThroughFile } from '../guest/crossing.ts';
import { migrateHarassed } from '../guest/harass.ts';
import { Mtty } from '../guest/mtty.ts';
import {
  assertArrived,
  CDEV,
  CDEV_AUTO,
  CDEV_ROUND,
  NEW,
  OLD,
  ROUND_SMALL,
  startDestination,
  startSource,
  type End,
} from '../guest/pair.ts';
import { BY_CDEV } from '../guest/vm.ts';

/** The migrations of iommufd that it leaves out, as they take minutes. */

await checkLive([
  ['native 10.0 by cdev to the same', CDEV, CDEV],
  ['native 10.0 by group to 10.0 under run by cdev', NEW, CDEV_AUTO],
  ['native 10.0 by cdev to 10.0 under run --round-trip by cdev', CDEV, CDEV_ROUND],
  ['native 10.0 by cdev to 7.2 under run', CDEV, OLD],
  ['7.2 under run to 10.0 under run --round-trip by cdev', OLD, CDEV_ROUND],
]);
await checkThroughFile([
  ['10.0 under run --round-trip by cdev to native 10.0 by cdev', CDEV_ROUND, CDEV],
  ['7.2 under run to 10.0 under run by cdev', OLD, CDEV_AUTO],
]);

/** QEMU 10 wants P2P states of several devices, which v1 has not. */
const CDEV_P2P: End = { ...CDEV_ROUND, shim: [...(CDEV_ROUND.shim ?? []), '--offer-p2p'] };

await check('two devices by their own nodes', async (bed) => {
  const [from, to] = [Array.from({ length: 2 }, () => Mtty.create()), Array.from({ length: 2 }, () => Mtty.create())];
  const [source, destination] = await Promise.all([
    startSource(bed, CDEV_P2P, 0xc3, 'source', from),
    startDestination(bed, CDEV, 'destination', to),
  ]);
  await migrateLive(source.vm, destination.vm, bed.path('migration'), { returnPath: true });
  await assertArrived(bed, source, destination, 0xc3);
});

await check('10.0 under run by cdev: supervisors killed again and again, at both ends', (bed) =>
  migrateHarassed(bed, { ...ROUND_SMALL, options: BY_CDEV }, 4, 0x8c),
);
