import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { TestBed } from '../../tools/vmm/test-bed.ts';
import { check, note } from '../guest/check.ts';
import { begin, finish, memoryContents, migrate } from '../guest/libvirt-life.ts';
import { startWrapped, withEmulated } from '../guest/libvirt-wrapped.ts';
import { assertServing } from '../guest/serving.ts';
import { assertNoLeak, describe, usageOf, type Usage } from '../guest/usage.ts';

/**
 * Long: a domain with two emulated devices, one of a v2 driver and one of a v1 driver, goes back and forth between two of libvirt's
 * daemons, under the wrapper. Both halves of the bridge are at work in both. Nothing is left of it.
 */

/** `--migrations` of the lab. */
const MIGRATIONS = Number(/\blab\.migrations=(\d+)/.exec(readFileSync('/proc/cmdline', 'latin1'))?.[1] ?? 100);
/** By then caches are warm. What there is then is compared with what there is whenever the domain is on the same host. */
const WARM = 2 * Math.ceil(Math.min(10, MIGRATIONS / 2) / 2);
/** Of one migration, on a machine that is busy. */
const MIGRATION_MS = 60_000;

const own = new TestBed(); // hosts outlive the checks
const options = {
  emulated: ['qat,size=1M', 'vendor-v1,size=1M'],
  options: ['--round-trip'],
} as const;
const hosts = [await startWrapped(own, 'a', 'bookworm', options), await startWrapped(own, 'b', 'bookworm', options)];

/** Where wrapper, run, QEMU and libvirt make files, in each host. */
const MADE_IN = ['/tmp', '/run', '/run/libvirt/qemu', '/var/lib/libvirt/qemu', '/var/log/libvirt/qemu'];
const MADE_IN_TOO = ['/usr/local/bin', '/vm', '/vm/devices'];

/** What there is now. libvirt numbers the directory of a domain each time that it begins. */
function usage(): Usage {
  const directories = hosts.flatMap(({ host }) => [...MADE_IN, ...MADE_IN_TOO].map((path) => host.seen(path)));
  const found = usageOf(['/dev/shm', '/run', ...directories]);
  return { ...found, files: found.files.map((name) => name.replace(/^domain-\d+-/, 'domain-')) };
}

await check(
  `${MIGRATIONS} migrations of two devices by virsh, back and forth`,
  async (bed) => {
    const [a, b] = hosts;
    assert.ok(a !== undefined && b !== undefined && MIGRATIONS > WARM && MIGRATIONS % 2 === 0);
    const here = withEmulated('soak', a);
    let running = await begin(bed, a.host, here, memoryContents(options.emulated.length));
    let warm: Usage | undefined;
    for (let count = 1; count <= MIGRATIONS; count += 1) {
      const { host } = count % 2 === 1 ? b : a;
      running = await migrate(bed, running, host, here, 'tcp');
      await assertServing(2); // the keeper and the supervisor of the destination
      const now = usage();
      note(`${count} of ${MIGRATIONS}: ${describe(now)}`);
      if (warm !== undefined && count % 2 === 0) assertNoLeak(warm, now);
      if (count === WARM) warm = now;
    }
    assert.ok(warm !== undefined);
    await finish(bed, running);
  },
  { ms: MIGRATIONS * MIGRATION_MS },
);

for (const { host } of hosts) host.end();
await own.cleanUp();
