import assert from 'node:assert/strict';
import { TestBed } from '../../tools/vmm/test-bed.ts';
import { check, note } from '../guest/check.ts';
import { begin, finish, live, longCheck, memoryContents, migrate, uartContents } from '../guest/libvirt-life.ts';
import { as, checkProbing, QEMU, startWrapped, withEmulated, withMtty } from '../guest/libvirt-wrapped.ts';
import { Mtty } from '../guest/mtty.ts';

/** From libvirt 9.0 with QEMU 7.2 under the wrapper to libvirt 11.3 with QEMU 10.0. */

const own = new TestBed(); // hosts outlive the checks
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
