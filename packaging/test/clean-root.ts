import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, readlinkSync, symlinkSync } from 'node:fs';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PrivateApt, unpack } from '../../scripts/lib/apt.mjs';
import { cachePath, makeEntry } from '../../scripts/lib/cache.mjs';
import { run } from '../../scripts/lib/process.mjs';

/*
 * A Debian 12 of its own for each test: packages as they are, unpacked, and entered in namespaces without a network. dpkg knows
 * them as installed. What they do when they are configured is left out: nothing of it is needed to install a package.
 */

const SUITES = ['bookworm', 'bookworm-security'];
/** What installs a package, Debian's Node, and what reads manuals and completions. */
const PACKAGES = [
  'base-files dpkg apt tar xz-utils gzip dash bash diffutils libc-bin usr-is-merged coreutils findutils grep sed',
  'nodejs man-db zsh fish',
].flatMap((names) => names.split(' '));

/** The root in the cache, made first if it is not there. Its key is the recipe, this file; its packages are those of the day it was made. */
async function pristineRoot(): Promise<string> {
  const key = createHash('sha256')
    .update(readFileSync(import.meta.filename))
    .digest('hex')
    .slice(0, 16);
  const home = cachePath(`root-bookworm-${key}`);
  const isComplete = (): boolean => existsSync(join(home, 'var/lib/dpkg/status'));
  if (!isComplete()) await makeEntry(home, { isComplete, fill });
  return home;
}

async function fill(root: string, scratch: string): Promise<void> {
  const say = (text: string): void => void process.stderr.write(`clean root: ${text}\n`);
  const apt = new PrivateApt(join(scratch, 'apt'), { architecture: 'amd64', suites: SUITES, say });
  await apt.update();
  const debs = await apt.downloadWithDependencies(PACKAGES);
  say(`unpacking ${debs.length} packages of Debian 12`);
  for (const name of ['bin', 'lib', 'lib64', 'sbin']) {
    mkdirSync(join(root, 'usr', name), { recursive: true });
    symlinkSync(`usr/${name}`, join(root, name));
  }
  await unpack(debs, root);
  for (const name of ['dev', 'proc', 'tmp', 'var/lib/dpkg/info', 'var/lib/dpkg/updates', 'var/log']) {
    mkdirSync(join(root, name), { recursive: true });
  }
  symlinkSync('mawk', join(root, 'usr/bin/awk')); // as update-alternatives makes it; fish calls it
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/tmp:/bin/sh\n');
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\nnogroup:x:65534:\n');
  const entries = await Promise.all(debs.map((deb) => register(deb, root)));
  writeFileSync(join(root, 'var/lib/dpkg/status'), entries.join('\n'));
}

/** The entry of an unpacked package in dpkg's list, after its files have been listed. */
async function register(deb: string, root: string): Promise<string> {
  const control = await run('dpkg-deb', ['--field', deb]);
  const field = (name: string): string => new RegExp(`^${name}: (.*)$`, 'm').exec(control)?.[1] ?? '';
  const listing = await run('bash', ['-o', 'pipefail', '-c', 'dpkg-deb --fsys-tarfile "$1" | tar -t', 'list', deb]);
  const files = listing.replaceAll(/^\.(.*?)\/?$/gm, (_, path: string) => path || '/.');
  const name = field('Multi-Arch') === 'same' ? `${field('Package')}:${field('Architecture')}` : field('Package');
  writeFileSync(join(root, `var/lib/dpkg/info/${name}.list`), files);
  return control.replace(/^(Package: .*)$/m, '$1\nStatus: install ok installed');
}

/** What is the kernel's, and what dpkg and apt write for themselves. */
const NOTES = ['/dev', '/proc', '/var/cache/apt', '/var/lib/apt', '/var/lib/dpkg', '/var/log'];

export interface Entered {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A copy of the root that is entered by `unshare` and `chroot`. */
export class CleanRoot {
  readonly path: string;
  /** What of the host is there, by the same path. */
  readonly #shown: readonly string[];
  /** Files that are empty there. */
  readonly #hidden: readonly string[];

  private constructor(path: string, shown: readonly string[], hidden: readonly string[]) {
    this.path = path;
    this.#shown = shown;
    this.#hidden = hidden;
  }

  static async make(path: string, shown: readonly string[], hidden: readonly string[] = []): Promise<CleanRoot> {
    await run('cp', ['-a', await pristineRoot(), path]);
    for (const place of shown) mkdirSync(join(path, place), { recursive: true });
    return new CleanRoot(path, shown, hidden);
  }

  /** What runs a command in it, with its own processes and no network. */
  entering(command: readonly string[], env: Readonly<Record<string, string>> = {}): string[] {
    const binds = this.#shown.map((place) => `mount --bind ${quote(place)} "$root"${quote(place)}`);
    const hides = this.#hidden.map((place) => `mount --bind /dev/null "$root"${quote(place)}`);
    const mounts = ['mount -t proc proc "$root/proc"', 'mount --rbind /dev "$root/dev"', ...binds, ...hides];
    const script = `root=$1; shift; ${mounts.join(' && ')} && exec chroot "$root" "$@"`;
    const inside = ['/usr/bin/env', '-i', 'PATH=/usr/sbin:/usr/bin:/sbin:/bin', 'HOME=/root', 'LC_ALL=C.UTF-8'];
    const assigned = Object.entries(env).map(([name, value]) => `${name}=${value}`);
    return ['unshare', ...NAMESPACES, 'sh', '-c', script, 'sh', this.path, ...inside, ...assigned, ...command];
  }

  /** Runs a command in it to its end. */
  run(command: readonly string[], env: Readonly<Record<string, string>> = {}): Entered {
    const [file = '', ...args] = this.entering(command, env);
    const { status, stdout, stderr } = spawnSync(file, args, {
      encoding: 'utf8',
      timeout: 100_000,
      maxBuffer: 2 ** 26,
    });
    return { status, stdout, stderr };
  }

  /** What the root holds: what is what, and of which size, mode and time; without what dpkg and apt note about themselves. */
  contents(): string[] {
    const found: string[] = [];
    const visit = (directory: string): void => {
      for (const name of readdirSync(join(this.path, directory)).toSorted()) {
        const path = join(directory, name);
        if ([...NOTES, ...this.#shown].includes(path)) continue;
        const stat = lstatSync(join(this.path, path));
        if (stat.isDirectory()) {
          found.push(`${path}/ ${stat.mode.toString(8)}`);
          visit(path);
        } else {
          const what = stat.isSymbolicLink() ? readlinkSync(join(this.path, path)) : `${stat.size} ${stat.mtimeMs}`;
          found.push(`${path} ${stat.mode.toString(8)} ${what}`);
        }
      }
    };
    visit('/');
    return found;
  }
}

/** Root of a user namespace suffices, if this is not root: what is installed belongs to nobody else. */
const AS_ROOT = process.getuid?.() === 0 ? [] : ['--user', '--map-root-user'];
const NAMESPACES = [...AS_ROOT, '--mount', '--propagation=private', '--pid', '--fork', '--kill-child', '--net'];

/** Why this host cannot enter a root, in words; `undefined` if it can. */
export function lacksRoots(): string | undefined {
  const { status, stderr, error } = spawnSync('unshare', [...NAMESPACES, 'true'], { encoding: 'utf8' });
  return status === 0 ? undefined : `unshare: ${error?.message ?? stderr.trim()}`;
}

function quote(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}
