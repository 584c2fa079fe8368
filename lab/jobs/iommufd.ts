import assert from 'node:assert/strict';
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { basename } from 'node:path';
import { openKernelDevice } from '../../src/kernel/open.ts';
import { check } from '../guest/check.ts';
import { assertNatively, imprintNatively, pathOf, runV1Client, saveNatively } from '../guest/client.ts';
import { json, shim } from '../guest/command.ts';
import { checkLive, type Crossing } from '../guest/crossing.ts';
import { byCdev } from '../guest/hand-over.ts';
import { Mtty } from '../guest/mtty.ts';
import { CDEV, CDEV_AUTO, CDEV_ROUND, NEW, OLD } from '../guest/pair.ts';

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
  ['10.0 under run by cdev to native 10.0 by cdev', CDEV_AUTO, CDEV],
  ['10.0 under run --round-trip by cdev to native 10.0 by group', CDEV_ROUND, NEW],
  ['7.2 under run to native 10.0 by cdev', OLD, CDEV],
  ['10.0 under run --round-trip by cdev to 7.2 under run', CDEV_ROUND, OLD],
];
await checkLive(crossings);
