import { begin, finish, live, longCheck, memoryContents, migrate, uartContents } from './libvirt-life.ts';
import type { LibvirtMode } from './libvirt-host.ts';
import { as, withEmulated, withMtty, type Wrapped } from './libvirt-wrapped.ts';
import { Mtty } from './mtty.ts';
import { USER } from './user.ts';

/** Checks of what a domain under the wrapper goes through on a host, and on the way to another and back. */
export async function checkDomains(mode: LibvirtMode, a: Wrapped, b: Wrapped): Promise<void> {
  const uid = mode === 'system' ? 0 : USER;

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
}
