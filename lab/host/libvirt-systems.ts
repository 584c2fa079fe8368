import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PrivateApt, unpack } from '../../scripts/lib/apt.mjs';
import { cachePath, makeEntry } from '../../scripts/lib/cache.mjs';
import { Failure } from '../../scripts/lib/process.mjs';
import { versionOf } from '../image/packages.ts';
import { Unavailable } from '../unavailable.ts';

/** Debian's releases with a libvirt and the QEMU of its time. */
export type LibvirtSuite = 'bookworm' | 'trixie' | 'sid';

/** libvirt's daemon and client, QEMU, a shell, and what the host's node needs; with what they depend on. */
const PACKAGES = [
  'libvirt-daemon',
  'libvirt-daemon-driver-qemu',
  'libvirt-clients',
  'qemu-system-x86',
  'busybox-static',
  'libstdc++6',
];

/** Where guest/libvirt-host.ts mounts what a system must not share or cannot have in its packages. */
const DIRECTORIES = ['dev', 'proc', 'sys', 'tmp', 'run', 'root', 'opt', 'project', 'vm', 'usr/local/bin'];
const FILES = ['usr/bin/node'];
/** What libvirt-daemon-system's postinst would have made, root, and an ordinary user. */
const PASSWD = `root:x:0:0:root:/root:/bin/sh
lab:x:1000:1000:an ordinary user:/tmp:/bin/sh
libvirt-qemu:x:64055:64055:Libvirt Qemu:/var/lib/libvirt:/bin/sh
`;
const GROUP = 'root:x:0:\ntty:x:5:\nlab:x:1000:\nlibvirt:x:64056:\nlibvirt-qemu:x:64055:\n';
/** Written last. */
const VERSIONS = 'versions.json';

/** A root file system in the cache, unpacked and never changed. */
export interface LibvirtSystem {
  readonly suite: LibvirtSuite;
  readonly root: string;
  readonly versions: { readonly libvirt: string; readonly qemu: string };
}

/** Finds a suite's system in the cache, or makes it. It stays as it is until its directory is removed. */
export async function prepareLibvirt(suite: LibvirtSuite, say: (text: string) => void): Promise<LibvirtSystem> {
  const home = cachePath(`libvirt-${suite}`);
  const isComplete = (): boolean => existsSync(join(home, VERSIONS));
  if (!isComplete()) {
    await makeEntry(home, { isComplete, fill: (complete, scratch) => fill(suite, complete, scratch, say) });
  }
  const versions = JSON.parse(readFileSync(join(home, VERSIONS), 'utf8')) as LibvirtSystem['versions'];
  return { suite, root: join(home, 'root'), versions };
}

async function fill(
  suite: LibvirtSuite,
  complete: string,
  scratch: string,
  say: (text: string) => void,
): Promise<void> {
  const root = join(complete, 'root');
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) {
    mkdirSync(join(root, 'usr', name), { recursive: true });
    symlinkSync(`usr/${name}`, join(root, name));
  }
  const debs = await download(suite, join(scratch, 'apt'), say);
  say(`unpacking ${debs.length} packages`);
  await unpack(debs, root);
  for (const name of ['doc', 'man', 'locale', 'info', 'lintian']) {
    rmSync(join(root, 'usr/share', name), { recursive: true, force: true });
  }
  for (const name of DIRECTORIES) mkdirSync(join(root, name), { recursive: true });
  for (const name of FILES) writeFileSync(join(root, name), '');
  if (!existsSync(join(root, 'usr/bin/sh'))) symlinkSync('busybox', join(root, 'usr/bin/sh'));
  writeFileSync(join(root, 'etc/passwd'), PASSWD);
  writeFileSync(join(root, 'etc/group'), GROUP);
  const versions = { libvirt: versionOf(debs, 'libvirt-daemon'), qemu: versionOf(debs, 'qemu-system-x86') };
  writeFileSync(join(complete, VERSIONS), `${JSON.stringify(versions)}\n`);
}

async function download(suite: LibvirtSuite, directory: string, say: (text: string) => void): Promise<string[]> {
  try {
    const apt = new PrivateApt(directory, { architecture: 'amd64', suites: [suite], say });
    await apt.update();
    say(`downloading libvirt and QEMU of ${suite}: about 80 MB`);
    return await apt.downloadWithDependencies(PACKAGES);
  } catch (error) {
    if (error instanceof Failure) throw new Unavailable(error.message, { cause: error });
    throw error;
  }
}
