import { checkLive, checkThroughFile } from '../guest/crossing.ts';
import { noteNewestQemu } from '../guest/newest-qemu.ts';
import { NEW, OLD, type End } from '../guest/pair.ts';
import { BY_CDEV } from '../guest/vm.ts';

/** Long, as it takes another QEMU: Debian's newest, by group and by cdev, to itself and to the others. */

const GROUP: End = { qemu: 'newest' };
const CDEV: End = { qemu: 'newest', options: BY_CDEV };
const CDEV_AUTO: End = { ...CDEV, shim: [] };
const CDEV_ROUND: End = { ...CDEV, shim: ['--present', 'v2', '--round-trip'] };

noteNewestQemu();
await checkLive([
  ['native newest by cdev to the same', CDEV, CDEV],
  ['newest under run by cdev to native newest by group', CDEV_AUTO, GROUP],
  ['newest under run --round-trip by cdev to native newest by cdev', CDEV_ROUND, CDEV],
  ['native newest by group to newest under run --round-trip by cdev', GROUP, CDEV_ROUND],
  ['7.2 under run to native newest by cdev', OLD, CDEV],
  ['native newest by cdev to 7.2 under run', CDEV, OLD],
  ['native 10.0 by cdev to newest under run --round-trip by cdev', { ...NEW, options: BY_CDEV }, CDEV_ROUND],
  ['newest under run --round-trip by cdev to native 10.0 by group', CDEV_ROUND, NEW],
]);
await checkThroughFile([
  ['newest under run --round-trip by cdev to native newest by cdev', CDEV_ROUND, CDEV],
  ['7.2 under run to newest under run by cdev', OLD, CDEV_AUTO],
]);
