import assert from 'node:assert/strict';
import { TestBed } from '../../tools/vmm/test-bed.ts';
import { check, note } from '../guest/check.ts';
import { begin, finish, live, longCheck, memoryContents, migrate, uartContents } from '../guest/libvirt-life.ts';
import { as, checkProbing, QEMU, startWrapped, withEmulated, withMtty } from '../guest/libvirt-wrapped.ts';
import { Mtty } from '../guest/mtty.ts';
import { USER } from '../guest/user.ts';

/** libvirt 9.0 with QEMU 7.2 under the wrapper, and the way from there to libvirt 11.3 with QEMU 10.0. */

/** Hosts, which outlive the checks. */
const own = new TestBed();

for (const mode of ['session', 'system'] as const) {
  const uid = mode === 'system' ? 0 : USER;
  const a = await startWrapped(own, `${mode}-a`, 'bookworm', { mode });
  const b = await startWrapped(own, `${mode}-b`, 'bookworm', { mode });
  await checkProbing(mode, a);

  await longCheck(`${mode}: an emulated device is stopped, goes on, is saved and restored`, async (bed) => {
    const here = withEmulated('emulated', a);
    await finish(bed, await live(bed, await begin(bed, a.host, here, memoryContents())));
  });

  await longCheck(`${mode}: an emulated device migrates to another host and back`, async (bed) => {
    const here = withEmulated('emulated-migrated', a);
    let running = await begin(bed, a.host, here, memoryContents());
    running = await migrate(bed, running, b.host, here, 'unix');
    running = await migrate(bed, running, a.host, here, 'tcp');
    await finish(bed, running);
  });

  await longCheck(`${mode}: an mtty as <hostdev> is stopped, goes on, is saved and restored`, async (bed) => {
    const here = withMtty('hostdev', a, Mtty.create('mtty-2', uid));
    await finish(bed, await live(bed, await begin(bed, a.host, here, uartContents(0x5a))));
  });

  await longCheck(`${mode}: an mtty as <hostdev> migrates to another host and back`, async (bed) => {
    const here = withMtty('hostdev-migrated', a, Mtty.create('mtty-2', uid));
    const there = as(here, withMtty('', b, Mtty.create('mtty-2', uid)));
    let running = await begin(bed, a.host, here, uartContents(0x35));
    running = await migrate(bed, running, b.host, there, 'unix');
    running = await migrate(bed, running, a.host, here, 'tcp');
    await finish(bed, running);
  });

  for (const { host } of [a, b]) host.end();
}

const old = await startWrapped(own, 'old', 'bookworm');
const newer = await startWrapped(own, 'newer', 'trixie');
await checkProbing('libvirt 11.3', newer);

await longCheck('an mtty as <hostdev> leaves QEMU 7.2 under the wrapper for native QEMU 10.0', async (bed) => {
  const here = withMtty('crossing', old, Mtty.create('mtty-2'));
  const there = as(here, withMtty('', newer, Mtty.create('mtty-2'), QEMU));
  const source = await begin(bed, old.host, here, uartContents(0xa3));
  const running = await migrate(bed, source, newer.host, there, 'tcp');
  await finish(bed, await live(bed, running));
});

await longCheck('an emulated device leaves QEMU 7.2 for QEMU 10.0, both under wrappers', async (bed) => {
  const here = withEmulated('emulated-crossing', old);
  const there = as(here, withEmulated('', newer));
  const source = await begin(bed, old.host, here, memoryContents());
  await finish(bed, await migrate(bed, source, newer.host, there, 'tcp'));
});

await check('libvirt 9.0 cannot ask QEMU 10.0 what it can, without a wrapper either', async (bed) => {
  const asked = old.host.virsh(bed, 'domcapabilities', 'qemu', '/opt/qemu-10/qemu-system-x86_64');
  await assert.rejects(asked, (error: Error) => (note(error.message), true));
});

for (const { host } of [old, newer]) host.end();
await own.cleanUp();
