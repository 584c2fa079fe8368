import assert from 'node:assert/strict';
import { TestBed } from '../../tools/vmm/test-bed.ts';
import { check, note } from '../guest/check.ts';
import { domain, NEW_PROPERTIES, OLD_PROPERTIES, type Domain } from '../guest/libvirt-domain.ts';
import { LibvirtHost, type LibvirtMode, type LibvirtSuite } from '../guest/libvirt-host.ts';
import { begin, finish, live, memoryContents, migrate, uartContents, waitUnserved } from '../guest/libvirt-life.ts';
import { Mtty } from '../guest/mtty.ts';
import { USER } from '../guest/user.ts';

/** libvirt 9.0 with QEMU 7.2 under the wrapper, and a way to libvirt 11.3 with QEMU 10.0. */

const QEMU = '/usr/bin/qemu-system-x86_64';
/** An emulated device of the wrapper, and its directory in each host. */
const EMULATED = ['--device', 'qat,size=1M', '--sysfs', '/vm/devices'];
const SYSFS = '/vm/devices/0000:90:00.0';
const OLD = 'x-enable-migration=on';
const NEW = 'enable-migration=on';

/** Hosts, which outlive the checks. */
const own = new TestBed();

/** Wrappers of a host: for devices of the kernel, and with an emulated one. */
interface Host {
  readonly host: LibvirtHost;
  readonly bridging: string;
  readonly emulating: string;
}

async function start(name: string, suite: LibvirtSuite, mode: LibvirtMode): Promise<Host> {
  const host = await LibvirtHost.start(own, name, suite, mode);
  const present = suite === 'bookworm' ? 'v1' : 'v2';
  const bridging = await host.installWrapper(own, 'qemu-bridged', '--present', present);
  const emulating = await host.installWrapper(own, 'qemu-with-qat', '--present', present, ...EMULATED);
  return { host, bridging, emulating };
}

const withMtty = (name: string, { bridging }: Host, mtty: Mtty): Domain =>
  domain(name, bridging, { mtty, properties: OLD_PROPERTIES });
const withQat = (name: string, { emulating }: Host): Domain =>
  domain(name, emulating, { sysfs: SYSFS, properties: OLD });

for (const mode of ['system', 'session'] as const) {
  const uid = mode === 'system' ? 0 : USER;
  const a = await start(`${mode}-a`, 'bookworm', mode);
  const b = await start(`${mode}-b`, 'bookworm', mode);
  note(`${mode}: ${await a.host.virsh(own, 'version')}`);

  await check(`${mode}: libvirt learns through the wrapper what it learns of QEMU`, async (bed) => {
    const ask = (emulator: string): Promise<string> =>
      a.host.virsh(bed, 'domcapabilities', emulator, 'x86_64', 'pc-i440fx-7.2', 'qemu');
    const [native, wrapped] = [await ask(QEMU), await ask(a.bridging)];
    assert.match(native, /<machine>pc-i440fx-7\.2</);
    assert.equal(wrapped.replace(a.bridging, QEMU), native);
    await waitUnserved();
  });

  const emulated = withQat('emulated', a);
  await check(`${mode}: an emulated device is stopped, goes on, is saved and restored`, async (bed) => {
    await finish(bed, await live(bed, await begin(bed, a.host, emulated, memoryContents())));
  });

  await check(`${mode}: an emulated device migrates to another host and back`, async (bed) => {
    let running = await begin(bed, a.host, emulated, memoryContents());
    running = await migrate(bed, running, b.host, emulated, 'unix');
    running = await migrate(bed, running, a.host, emulated, 'tcp');
    await finish(bed, running);
  });

  await check(`${mode}: an mtty as <hostdev> is stopped, goes on, is saved and restored`, async (bed) => {
    const here = withMtty('hostdev', a, Mtty.create('mtty-2', uid));
    await finish(bed, await live(bed, await begin(bed, a.host, here, uartContents(0x5a))));
  });

  await check(`${mode}: an mtty as <hostdev> migrates to another host and back`, async (bed) => {
    const here = withMtty('hostdev', a, Mtty.create('mtty-2', uid));
    const there: Domain = { ...here, device: { mtty: Mtty.create('mtty-2', uid), properties: OLD_PROPERTIES } };
    let running = await begin(bed, a.host, here, uartContents(0x35));
    running = await migrate(bed, running, b.host, there, 'unix');
    running = await migrate(bed, running, a.host, here, 'tcp');
    await finish(bed, running);
  });

  b.host.end();
  if (mode === 'session') {
    a.host.end();
    continue;
  }

  const n = await start('newer', 'trixie', 'system');
  note(`newer: ${await n.host.virsh(own, 'version')}`);

  await check('an mtty as <hostdev> leaves QEMU 7.2 under the wrapper for native QEMU 10.0', async (bed) => {
    const here = withMtty('crossing', a, Mtty.create('mtty-2'));
    const device = { mtty: Mtty.create('mtty-2'), properties: NEW_PROPERTIES };
    const there: Domain = { ...here, emulator: QEMU, device };
    const running = await migrate(bed, await begin(bed, a.host, here, uartContents(0xa3)), n.host, there, 'tcp');
    await finish(bed, await live(bed, running));
  });

  await check('an emulated device leaves QEMU 7.2 for QEMU 10.0, both under wrappers', async (bed) => {
    const here = withQat('emulated-crossing', a);
    const there: Domain = { ...here, emulator: n.emulating, device: { sysfs: SYSFS, properties: NEW } };
    const running = await migrate(bed, await begin(bed, a.host, here, memoryContents()), n.host, there, 'tcp');
    await finish(bed, running);
  });

  await check('libvirt 9.0 cannot ask QEMU 10.0 what it can, with no wrapper either', async (bed) => {
    const asked = a.host.virsh(bed, 'domcapabilities', '/opt/qemu-10/qemu-system-x86_64');
    await assert.rejects(asked, (error: Error) => (note(error.message), true));
  });
  a.host.end();
  n.host.end();
}
await own.cleanUp();
