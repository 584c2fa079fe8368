import assert from 'node:assert/strict';
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { basename } from 'node:path';
import { migrateLive } from '../../src/vmm/migration.ts';
import { openKernelDevice } from '../../src/kernel/open.ts';
import { check } from '../guest/check.ts';
import { assertNatively, imprintNatively, pathOf, runV1Client, saveNatively } from '../guest/client.ts';
import { json, shim } from '../guest/command.ts';
import { checkLive, checkThroughFile, type Crossing } from '../guest/crossing.ts';
import { byCdev } from '../guest/hand-over.ts';
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

/** Devices that are opened by their own nodes, and bound to iommufd (Linux 6.6): by our commands, by programs, and by VMMs. */

const SAVED = ['RUNNING', 'PRE_COPY', 'PRE_COPY_P2P', 'STOP_COPY', 'STOP', 'RUNNING'];

await check('the kernel has iommufd, and a device both a node of its own and a group', () => {
  const mtty = Mtty.create();
  assert.ok(existsSync('/dev/iommu') && existsSync(mtty.cdev) && existsSync(mtty.group));
});

/** What `probe` says of a device but for how it was named. */
function probe(path: string): Record<string, unknown> {
  const { name, device, sysfs, ...found } = json('probe', `vfio:${path}`);
  assert.equal(device, `vfio:${path}`);
  assert.equal(name, basename(path).split(':').at(-1));
  const { path: place = '', ...facts } = sysfs as Record<string, string>;
  return { ...found, ...facts, place: realpathSync(place) };
}

await check('probe tells the same of a device by its own node as by its group', () => {
  const mtty = Mtty.create();
  const found = probe(mtty.cdev);
  assert.deepEqual([found['protocol'], found['migrationFlags'], found['state']], ['v2', 7, 'RUNNING']);
  assert.deepEqual([found['dataSize'], found['driver'], found['dmaLogging']], [96, 'mtty', 'works']);
  assert.deepEqual(found, probe(pathOf(mtty)));
});

await check('a state is saved by a node and restored by a node, and by a group', async (bed) => {
  const [from, to, other] = [Mtty.create(), Mtty.create(), Mtty.create()];
  await imprintNatively(from, 0x5a);
  const saved = json('save', `vfio:${from.cdev}`, bed.path('state'));
  assert.deepEqual([saved['states'], saved['bytes']], [SAVED, 96]);
  for (const [mtty, path] of [
    [to, byCdev(to)],
    [other, pathOf(other)],
  ] as const) {
    const restored = json('restore', `vfio:${path}`, bed.path('state'));
    assert.equal(restored['sha256'], saved['sha256']);
    await assertNatively(mtty, 0x5a);
  }
});

await check('a device in use is refused in one line, however it is opened and asked for', () => {
  const mtty = Mtty.create();
  for (const path of [byCdev(mtty), pathOf(mtty)]) {
    using opened = openKernelDevice(path);
    assert.ok(opened.number >= 0);
    for (const asked of [byCdev(mtty), pathOf(mtty)]) {
      const { stderr, status } = shim('probe', `vfio:${asked}`);
      const lines = stderr.trimEnd().split('\n');
      assert.deepEqual([status, lines.length], [1, 1], stderr);
      assert.match(stderr, /^vfio-shim: \S+: is in use.*\[ERR_DEVICE, EBUSY\]\n$/);
    }
  }
});

await check('a v1 program saves and restores a device by its own node', async (bed) => {
  const [from, to] = [Mtty.create(), Mtty.create()];
  await imprintNatively(from, 0x95);
  const file = bed.path('state');
  await runV1Client(bed, 'saver', ['save', file], from, byCdev(from));
  assert.deepEqual(readFileSync(file), saveNatively(from));
  await runV1Client(bed, 'restorer', ['restore', file], to, byCdev(to));
  await assertNatively(to, 0x95);
});

const crossings: readonly Crossing[] = [
  ['native 10.0 by cdev to the same', CDEV, CDEV],
  ['10.0 under run by cdev to native 10.0 by cdev', CDEV_AUTO, CDEV],
  ['native 10.0 by group to 10.0 under run by cdev', NEW, CDEV_AUTO],
  ['10.0 under run --round-trip by cdev to native 10.0 by group', CDEV_ROUND, NEW],
  ['native 10.0 by cdev to 10.0 under run --round-trip by cdev', CDEV, CDEV_ROUND],
  ['7.2 under run to native 10.0 by cdev', OLD, CDEV],
  ['native 10.0 by cdev to 7.2 under run', CDEV, OLD],
  ['7.2 under run to 10.0 under run --round-trip by cdev', OLD, CDEV_ROUND],
  ['10.0 under run --round-trip by cdev to 7.2 under run', CDEV_ROUND, OLD],
];
await checkLive(crossings);
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
