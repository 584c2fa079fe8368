import { createHash } from 'node:crypto';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { cachePath } from '../../scripts/lib/cache.mjs';
import { run } from '../../scripts/lib/process.mjs';
import { Bed } from '../../src/vmm/bed.ts';
import { Child, killHard } from '../../src/vmm/child.ts';
import { poll } from '../../src/vmm/deadline.ts';
import { migrateLive } from '../../src/vmm/migration.ts';
import { qemuCommand } from '../../src/vmm/qemu-command.ts';
import { Vm } from '../../src/vmm/vm.ts';
import { lacksForRun } from '../../test/support/host.ts';
import { imprint, mismatches } from '../../tools/vmm/imprint.ts';
import { CleanRoot, lacksRoots } from './clean-root.ts';
import { makePackages, packageIn, root, succeeded } from './made.ts';

/*
 * A package is upgraded, and removed, while VMs run under it: supervisors that are killed then have successors that serve on.
 */

const lacking = lacksRoots() ?? lacksForRun();
const START_MS = 60_000;

mkdirSync(cachePath(''), { recursive: true });
const work = mkdtempSync(join(cachePath(''), 'packages-')); // roots are copied within a file system
const made = join(work, 'made');
let qemu = '';

/** The VMs of a test, with a directory that every root shows. */
class Beds extends Bed {
  constructor() {
    super(mkdtempSync(join(tmpdir(), 'shim-up-')));
  }

  /** Starts a QEMU under the installed command in a root, with a device that begins as it may. */
  async start(clean: CleanRoot, name: string, incoming = false): Promise<Vm> {
    const sysfs = this.path(`${name}.sysfs`);
    const options = ['--present', 'v1', '--device', 'qat,size=2M', '--sysfs', sysfs];
    const device = join(sysfs, '0000:90:00.0');
    const prefix = ['vfio-shim', 'run', ...options, '--'];
    const command = qemuCommand({ path: qemu, version: '7.2' }, this.path(name), { prefix, vfio: [device], incoming });
    const child = this.adopt(new Child(clean.entering(command), { env: process.env }));
    return Vm.attach(child, this.path(name), START_MS);
  }
}

/** The supervisors in a root. */
function supervisors(clean: CleanRoot): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((pid) => {
      try {
        const isOurs = readlinkSync(`/proc/${pid}/root`) === clean.path;
        return (
          isOurs && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('\0/usr/lib/vfio-shim/supervisor-main.js\0')
        );
      } catch {
        return false; // gone meanwhile
      }
    });
}

/** Kills the supervisors in a root, and waits for their successors. */
async function succeedAll(clean: CleanRoot): Promise<number[]> {
  const before = supervisors(clean);
  for (const pid of before) killHard(pid);
  const now = (): number[] => supervisors(clean).filter((pid) => !before.includes(pid));
  return poll(
    () => (now().length === before.length ? now() : undefined),
    START_MS,
    () => `${before.length} successors, there are ${now().length}`,
  );
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** The program that a supervisor was started with: the keeper's copy, which it has inherited. */
function programOf(pid: number): string {
  const fds = readdirSync(`/proc/${pid}/fd`).map((fd) => `/proc/${pid}/fd/${fd}`);
  const program = fds.find((fd) => readlinkSync(fd).startsWith('/memfd:vfio-shim-supervisor'));
  return sha256(readFileSync(program ?? ''));
}

/** Makes another version of a package: the number is higher, and each program is another file. */
async function nextVersion(deb: string, directory: string): Promise<string> {
  const tree = join(directory, 'tree');
  const next = join(directory, 'next.deb');
  await run('dpkg-deb', ['--raw-extract', deb, tree]);
  const control = join(tree, 'DEBIAN/control');
  writeFileSync(control, readFileSync(control, 'utf8').replaceAll(/(\d)-1(?=\n|\))/g, '$1-2'));
  rmSync(join(tree, 'DEBIAN/md5sums'));
  const programs = join(tree, 'usr/lib/vfio-shim');
  for (const name of readdirSync(programs).filter((each) => each.endsWith('.js'))) {
    writeFileSync(join(programs, name), '\n// the next version\n', { flag: 'a' });
  }
  chmodSync(tree, 0o755);
  await run('dpkg-deb', ['--root-owner-group', '-Zgzip', '-z1', '--build', tree, next]);
  rmSync(tree, { recursive: true });
  return next;
}

/** Puts a copy in place of each file of Debian's Node, as an upgrade of it does. */
const REPLACE_NODE = `for file in $(dpkg --listfiles nodejs libnode108); do
  if [ -f "$file" ] && [ ! -L "$file" ]; then cp -a "$file" "$file.new" && mv "$file.new" "$file" || exit 1; fi
done`;

describe.skipIf(lacking !== undefined)(
  `a package that is upgraded${lacking === undefined ? '' : ` (${lacking})`}`,
  () => {
    beforeAll(async () => {
      await makePackages(made, {}, 'deb');
      await makePackages(made, {}, 'standalone');
      qemu = (await run(process.execPath, [join(root, 'scripts/qemu.mjs'), 'bookworm'])).trim();
    });
    afterAll(() => rmSync(work, { recursive: true, force: true }));

    let bed: Beds;
    beforeEach(() => void (bed = new Beds()));
    afterEach(() => bed[Symbol.asyncDispose]());

    it.each([
      ['with the Node of Debian, which is upgraded too', 'vfio-shim', REPLACE_NODE],
      ['with a Node of its own', 'vfio-shim-standalone', 'true'],
    ])('and removed, %s, changes nothing for VMs that run', async (_, name, more) => {
      const first = packageIn(made, new RegExp(`^${name}_`));
      const second = await nextVersion(first, mkdtempSync(join(work, 'next-')));
      const clean = await CleanRoot.make(join(work, name), [made, bed.directory, cachePath('qemu-bookworm')]);
      const install = (deb: string): void => {
        writeFileSync(join(clean.path, 'tmp/package.deb'), readFileSync(deb));
        succeeded(clean.run(['dpkg', '--install', '/tmp/package.deb']));
      };
      const version = (): string => succeeded(clean.run(['dpkg-query', '--show', '--showformat=${Version}', name]));
      const program = (): string => sha256(readFileSync(join(clean.path, 'usr/lib/vfio-shim/supervisor-main.js')));

      install(first);
      const [firstVersion, firstProgram] = [version(), program()];
      const source = await bed.start(clean, 'source');
      await source.waitForFirmware();
      const marks = await imprint(source);
      const [supervisor = -1] = supervisors(clean);
      expect(programOf(supervisor)).toBe(firstProgram);

      install(second);
      succeeded(clean.run(['sh', '-c', more]));
      expect([version(), program() === firstProgram]).toEqual([firstVersion.replace(/1$/, '2'), false]);
      const [successor = -1] = await succeedAll(clean);
      expect(programOf(successor)).toBe(firstProgram);
      const middle = await bed.start(clean, 'middle', true);
      await migrateLive(source, middle, bed.path('first'), { returnPath: true });
      await middle.waitForStatus('running');
      expect(await mismatches(middle, marks)).toEqual([]);
      await source.quit();

      const last = await bed.start(clean, 'last', true); // the next version, as the middle one
      succeeded(clean.run(['dpkg', '--purge', name]));
      const heirs = await succeedAll(clean);
      expect(heirs).toHaveLength(2);
      for (const pid of heirs) expect(programOf(pid)).not.toBe(firstProgram);
      await migrateLive(middle, last, bed.path('second'), { returnPath: true });
      await last.waitForStatus('running');
      expect(await mismatches(last, marks)).toEqual([]);
      await last.waitForTicks();
    });
  },
);
