import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { basename } from 'node:path';
import { CLI } from '../../tools/vmm/cli.ts';
import { check } from '../guest/check.ts';
import { Mtty } from '../guest/mtty.ts';
import { RawDevice } from '../guest/raw-device.ts';

/** What the commands find in the sysfs and the /proc of a real kernel: devices by their names, and who has them open. */

function json(...args: readonly string[]): Record<string, unknown> {
  const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, ...args, '--json'], { encoding: 'utf8' });
  assert.equal(stderr, '');
  assert.equal(status, 0);
  return JSON.parse(stdout) as Record<string, unknown>;
}

function listed(mtty: Mtty): Record<string, unknown> {
  const { devices } = json('list') as { devices: Record<string, unknown>[] };
  const found = devices.find(({ name }) => name === mtty.uuid);
  assert.ok(found, `${mtty.uuid} is not listed`);
  return found;
}

await check('list shows a device, its group, and what its driver speaks', () => {
  const mtty = Mtty.create('mtty-2');
  const { vfio, ...found } = listed(mtty);
  const open = { protocol: 'v2', unknown: null, openBy: [], unseen: null };
  assert.deepEqual(found, { name: mtty.uuid, bus: 'mdev', driver: 'mtty', group: basename(mtty.group), ...open });
  assert.match(String(vfio), /^vfio\d+$/);
});

await check('list shows who has a device open, and leaves it alone', () => {
  const mtty = Mtty.create('mtty-2');
  using held = new RawDevice(mtty);
  assert.notEqual(held.info().num_regions, 0);
  const { protocol, unknown, openBy } = listed(mtty);
  assert.deepEqual([protocol, unknown], [null, 'busy']);
  assert.deepEqual(
    (openBy as { pid: number }[]).map(({ pid }) => pid),
    [process.pid],
  );
});

await check('probe takes a device by its UUID, and by its group', () => {
  const mtty = Mtty.create('mtty-2');
  for (const name of [mtty.uuid, mtty.uuid.toUpperCase(), mtty.group]) {
    const { device, name: found, protocol, whyNone } = json('probe', name);
    assert.deepEqual([device, found, protocol, whyNone], [name, mtty.uuid, 'v2', null]);
  }
});

await check('doctor finds that run works, and that devices are open to root', () => {
  Mtty.create('mtty-2');
  const { works, checks } = json('doctor') as {
    works: boolean;
    checks: { name: string; level: string; what: string }[];
  };
  assert.deepEqual(
    checks.filter(({ level }) => level === 'fail'),
    [],
  );
  assert.equal(works, true);
  assert.match(
    checks.find(({ name }) => name === 'vfio')?.what ?? '',
    /^\/dev\/vfio: open to this user: \/dev\/vfio\/\d/,
  );
});
