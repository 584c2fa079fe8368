import { migrateLive } from '../../src/vmm/migration.ts';
import { check } from '../guest/check.ts';
import { pathOf } from '../guest/client.ts';
import { assertHandedOver, byCdev, type PathOf } from '../guest/hand-over.ts';
import { Mtty } from '../guest/mtty.ts';
import { assertArrived, CDEV, CDEV_AUTO, CDEV_ROUND, startDestination, startSource, type End } from '../guest/pair.ts';
import { BY_CDEV, underShim } from '../guest/vm.ts';

/** Devices that are opened by their own nodes by somebody else than who uses them: by another run, or by who starts the VMM. */

const HANDED: readonly (readonly [title: string, own: PathOf, lent: PathOf])[] = [
  ['both by their own nodes', byCdev, byCdev],
  ['one by its group, one by its own node', pathOf, byCdev],
  ['one by its own node, one by its group', byCdev, pathOf],
];
for (const [title, own, lent] of HANDED) {
  await check(`a device that another run hands over: ${title}`, (bed) => assertHandedOver(bed, own, lent));
}

/** A VMM that is started with the device's descriptor. It tells a mediated device by `sysfsdev`, which it does not open then. */
const HANDED_FD = 20;
const handed = (end: End, mtty: Mtty, name: string): End => ({
  qemu: end.qemu,
  options: {
    ...BY_CDEV,
    vfioProperties: [...(BY_CDEV.vfioProperties ?? []), `fd=${HANDED_FD}`],
    prefix: [
      'sh',
      '-c',
      `exec ${HANDED_FD}<>"$0"; exec "$@"`,
      mtty.cdev,
      ...(end.shim === undefined ? ['env'] : underShim(name, ...end.shim)),
    ],
  },
});
for (const [title, end] of [
  ['native', CDEV],
  ['under run', CDEV_AUTO],
  ['under run --round-trip', CDEV_ROUND],
] as const) {
  await check(`10.0 ${title} that gets its device as fd=, to the same`, async (bed) => {
    const [from, to] = [Mtty.create(), Mtty.create()];
    const [source, destination] = await Promise.all([
      startSource(bed, handed(end, from, 'source'), 0x4e, 'source', [from]),
      startDestination(bed, handed(end, to, 'destination'), 'destination', [to]),
    ]);
    await migrateLive(source.vm, destination.vm, bed.path('migration'), { returnPath: true });
    await assertArrived(bed, source, destination, 0x4e);
  });
}
