import { TestBed } from '../../tools/vmm/test-bed.ts';
import { begin, finish, live, longCheck, memoryContents, migrate, uartContents } from '../guest/libvirt-life.ts';
import { as, checkProbing, QEMU, startWrapped, withEmulated, withMtty } from '../guest/libvirt-wrapped.ts';
import { Mtty } from '../guest/mtty.ts';

/** The newest libvirt and QEMU that Debian has, and the way there from libvirt 9.0 with QEMU 7.2. */

/** QEMU estimates next to no bandwidth while a guest is idle: the device's state would never fit into the downtime. */
const BANDWIDTH = ['--available-switchover-bandwidth', '1000'];
/** The same for what libvirt has no option for, in bytes per second. A round trip through v1 costs a data section, as QEMU is told. */
const PARAMETERS = { 'avail-switchover-bandwidth': 1000 * 2 ** 20 };

const own = new TestBed(); // hosts outlive the checks
const a = await startWrapped(own, 'newest-a', 'sid', { emulated: ['qat,size=16M'] });
const b = await startWrapped(own, 'newest-b', 'sid', { emulated: ['qat,size=16M'] });
await checkProbing('newest', a);

await longCheck(
  'an emulated device of 16 MiB is stopped, goes on, is saved if QEMU is told that, and restored',
  async (bed) => {
    const here = withEmulated('emulated', a);
    await finish(bed, await live(bed, await begin(bed, a.host, here, memoryContents()), PARAMETERS));
  },
);

await longCheck('an emulated device of 16 MiB migrates, if libvirt says what the link can do', async (bed) => {
  const here = withEmulated('emulated-migrated', a);
  let running = await begin(bed, a.host, here, memoryContents());
  running = await migrate(bed, running, b.host, here, 'unix', ...BANDWIDTH);
  running = await migrate(bed, running, a.host, here, 'tcp', ...BANDWIDTH);
  await finish(bed, running);
});

await longCheck('an mtty as <hostdev> is stopped, goes on, is saved and restored under the wrapper', async (bed) => {
  const here = withMtty('hostdev', a, Mtty.create('mtty-2'));
  await finish(bed, await live(bed, await begin(bed, a.host, here, uartContents(0x5a)), PARAMETERS));
});

await longCheck('an mtty as <hostdev> goes from native QEMU to the wrapper and back', async (bed) => {
  const here = withMtty('hostdev-migrated', a, Mtty.create('mtty-2'), QEMU);
  const there = as(here, withMtty('', b, Mtty.create('mtty-2')));
  let running = await begin(bed, a.host, here, uartContents(0x35));
  running = await migrate(bed, running, b.host, there, 'unix', ...BANDWIDTH);
  running = await migrate(bed, running, a.host, here, 'tcp', ...BANDWIDTH);
  await finish(bed, running);
});

b.host.end();
const old = await startWrapped(own, 'old', 'bookworm', { emulated: ['qat,size=16M'] });

await longCheck('an mtty as <hostdev> leaves QEMU 7.2 under the wrapper for the newest, native', async (bed) => {
  const here = withMtty('crossing', old, Mtty.create('mtty-2'));
  const there = as(here, withMtty('', a, Mtty.create('mtty-2'), QEMU));
  const source = await begin(bed, old.host, here, uartContents(0xa3));
  await finish(bed, await live(bed, await migrate(bed, source, a.host, there, 'tcp')));
});

await longCheck('an emulated device leaves QEMU 7.2 for the newest, both under wrappers', async (bed) => {
  const here = withEmulated('emulated-crossing', old);
  const there = as(here, withEmulated('', a));
  const source = await begin(bed, old.host, here, memoryContents());
  await finish(bed, await migrate(bed, source, a.host, there, 'tcp'));
});

for (const { host } of [a, old]) host.end();
await own.cleanUp();
