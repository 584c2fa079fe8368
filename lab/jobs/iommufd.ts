import assert from 'node:assert/strict';
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { basename } from 'node:path';
import { migrateLive } from '../../src/vmm/migration.ts';
import { openKernelDevice } from '../../src/kernel/open.ts';
import { check, note } from '../guest/check.ts';
import { assertNatively, imprintNatively, pathOf, runV1Client, saveNatively } from '../guest/client.ts';
import { json, shim } from '../guest/command.ts';
import { checkLive, checkThroughFile, type Crossing } from '../guest/crossing.ts';
import { DmaPair } from '../guest/dma-migration.ts';
import { assertHandedOver, type PathOf } from '../guest/hand-over.ts';
import { migrateHarassed } from '../guest/harass.ts';
import { Mtty } from '../guest/mtty.ts';
import { assertArrived, NEW, OLD, ROUND, ROUND_SMALL, startDestination, startSource, type End } from '../guest/pair.ts';
import { assertCrosses, native10, old, young, type Side } from '../guest/v1mem-pair.ts';
import { BY_CDEV, underShim } from '../guest/vm.ts';

/** Devices that are opened by their own nodes, and bound to iommufd (Linux 6.6): by our commands, by programs, and by VMMs. */

const CDEV: End = { ...NEW, options: BY_CDEV };
const CDEV_AUTO: End = { ...CDEV, shim: [] };
const CDEV_ROUND: End = { ...ROUND, options: BY_CDEV };
const SAVED = ['RUNNING', 'PRE_COPY', 'PRE_COPY_P2P', 'STOP_COPY', 'STOP', 'RUNNING'];

const byCdev: PathOf = ({ cdev }) => cdev;

await check('the kernel has iommufd, and a device both a node of its own and a group', () => {
  const mtty = Mtty.create();
  assert.ok(existsSync('/dev/iommu') && existsSync(mtty.cdev) && existsSync(mtty.group));
});

await check('probe tells the same of a device by its own node as by its group', () => {
  const mtty = Mtty.create();
  const [cdev, group] = [byCdev(mtty), pathOf(mtty)].map((path) => {
    const { name, ...found } = json('probe', `vfio:${path}`);
    assert.equal(name, basename(path).split(':').at(-1));
    const sysfs = found['sysfs'] as Record<string, string>;
    return { ...found, sysfs: { ...sysfs, path: realpathSync(sysfs['path'] ?? '') } } as Record<string, unknown>;
  });
  assert.ok(cdev !== undefined);
  assert.deepEqual([cdev['protocol'], cdev['migrationFlags'], cdev['state']], ['v2', 7, 'RUNNING']);
  assert.deepEqual([cdev['dataSize'], cdev['driver'], cdev['dmaLogging']], [96, 'mtty', 'works']);
  assert.deepEqual(cdev, group);
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

await check('two devices by their own nodes', async (bed) => {
  const [from, to] = [Array.from({ length: 2 }, () => Mtty.create()), Array.from({ length: 2 }, () => Mtty.create())];
  const [source, destination] = await Promise.all([
    startSource(bed, CDEV_ROUND, 0xc3, 'source', from),
    startDestination(bed, CDEV, 'destination', to),
  ]);
  await migrateLive(source.vm, destination.vm, bed.path('migration'), { returnPath: true });
  await assertArrived(bed, source, destination, 0xc3);
});

await check('10.0 under run by cdev: supervisors killed again and again, at both ends', (bed) =>
  migrateHarassed(bed, { ...ROUND_SMALL, options: BY_CDEV }, 4, 0x8c),
);

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
      ...['sh', '-c', `exec ${HANDED_FD}<>"$0"; exec "$@"`, mtty.cdev],
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

const youngByCdev: Side = {
  title: '10.0 under run by cdev',
  options: (name) => ({
    ...young.options(name),
    ...BY_CDEV,
    vfioProperties: [...(native10.vfioProperties ?? []), ...(BY_CDEV.vfioProperties ?? [])],
  }),
};
for (const [from, to] of [
  [youngByCdev, youngByCdev],
  [youngByCdev, old],
  [old, youngByCdev],
] as const) {
  await check(`a v1 driver, live, ${from.title} to ${to.title}`, (bed) => assertCrosses(bed, from, to, 'accessed'));
}
await check('a v1 driver whose data is mapped, live, 10.0 under run by cdev to the same', (bed) =>
  assertCrosses(bed, youngByCdev, youngByCdev, 'mapped'),
);

for (const [title, from, to] of [
  ['native 10.0 by cdev to the same', CDEV, CDEV],
  ['10.0 under run --round-trip by cdev to native 10.0 by cdev', CDEV_ROUND, CDEV],
  ['10.0 under run --round-trip by cdev to 7.2 under run', CDEV_ROUND, OLD],
] as const) {
  await check(
    `a device that writes to memory which is pinned by iommufd, ${title}`,
    async (bed) => {
      const pair = await DmaPair.start(bed, { from, to, devices: 1, pagesPerSecond: 1000, limitMs: 120_000 });
      const outcome = await pair.migrate();
      const differing = await pair.differingPages();
      note(`${title}: ${JSON.stringify({ ...outcome, differing: differing.length })}`);
      assert.equal(outcome.status, 'completed', outcome.why);
      assert.deepEqual(differing, []);
      assert.ok(outcome.written > 0 && outcome.looks >= 5);
      await pair.goOn();
    },
    { ms: 240_000 },
  );
}
