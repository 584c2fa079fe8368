import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cachePath, makeEntry } from '../../scripts/lib/cache.mjs';
import { unpack } from '../../scripts/lib/apt.mjs';
import { initramfs } from './initramfs.ts';
import { collectModules } from './modules.ts';
import { buildDrivers } from './drivers.ts';
import { fetchPackages, onlyIn } from './packages.ts';
import { makeImage, makeRoot, type Versions } from './root.ts';
import { requireTools } from './tools.ts';

const RECIPE = dirname(fileURLToPath(import.meta.url));
const FILES = ['vmlinuz', 'initramfs', 'root.img'] as const;
const UNUSED_MS = 14 * 24 * 3600 * 1000;

/** What a guest boots from. */
export interface Image {
  readonly kernel: string;
  readonly initramfs: string;
  readonly root: string;
  readonly versions: Versions & { readonly linux: string };
}

interface Manifest {
  readonly versions: Image['versions'];
  readonly sizes: Readonly<Record<(typeof FILES)[number], number>>;
}

/**
 * The image in the cache, made first if it is not there. Its key is the recipe, which is everything in this directory, and
 * what is taken from the host; so a change of either makes another. The packages' versions are those of the day it was made.
 */
export async function prepareImage(qemu10: string, say: (text: string) => void): Promise<Image> {
  const home = cachePath(join('lab', keyOf(qemu10)));
  if (readManifest(home) === undefined) {
    requireTools();
    removeUnused(dirname(home));
    await makeEntry(home, {
      isComplete: () => readManifest(home) !== undefined,
      fill: (complete, scratch) => fill(complete, scratch, qemu10, say),
    });
  }
  const manifest = readManifest(home);
  if (manifest === undefined) throw new Error(`${home} is not complete`);
  touch(home);
  const [kernel, initramfs, root] = FILES.map((name) => join(home, name)) as [string, string, string];
  return { kernel, initramfs, root, versions: manifest.versions };
}

function keyOf(qemu10: string): string {
  const hash = createHash('sha256');
  for (const name of readdirSync(RECIPE).toSorted()) hash.update(name).update(readFileSync(join(RECIPE, name)));
  for (const program of [process.execPath, join(qemu10, 'usr/bin/qemu-system-x86_64')]) {
    const { size, mtimeMs } = statSync(program);
    hash.update(`${program} ${size} ${mtimeMs}\n`);
  }
  return hash.digest('hex').slice(0, 16);
}

async function fill(complete: string, scratch: string, qemu10: string, say: (text: string) => void): Promise<void> {
  const packages = await fetchPackages(join(scratch, 'apt'), say);
  say('compiling mtty, v1mem, v2log and vfio');
  const { drivers, reporting } = await buildDrivers(packages, scratch);
  say('making the initramfs and the root image');
  const linux = join(scratch, 'linux');
  const tree = join(scratch, 'root');
  for (const directory of [linux, tree]) mkdirSync(directory);
  await unpack([packages.kernel], linux);
  const modules = await collectModules(join(linux, 'lib/modules', packages.release), drivers, reporting);
  const versions = await makeRoot(tree, { debs: packages.programs, qemu10 });
  const contents = {
    vmlinuz: readFileSync(onlyIn(join(linux, 'boot'), /^vmlinuz-/)),
    initramfs: initramfs(join(tree, 'bin/busybox'), modules),
  };
  for (const [name, data] of Object.entries(contents)) writeFileSync(join(complete, name), data);
  await makeImage(tree, join(complete, 'root.img'));
  const sizes = Object.fromEntries(FILES.map((name) => [name, statSync(join(complete, name)).size]));
  const manifest = { versions: { ...versions, linux: packages.release }, sizes };
  writeFileSync(join(complete, 'manifest.json'), `${JSON.stringify(manifest, undefined, 2)}\n`);
}

/** The manifest, if the files are there as it describes them. */
function readManifest(home: string): Manifest | undefined {
  const file = join(home, 'manifest.json');
  if (!existsSync(file)) return undefined;
  const manifest = JSON.parse(readFileSync(file, 'utf8')) as Manifest;
  const good = FILES.every(
    (name) => statSync(join(home, name), { throwIfNoEntry: false })?.size === manifest.sizes[name],
  );
  return good ? manifest : undefined;
}

function touch(home: string): void {
  const now = new Date();
  utimesSync(join(home, 'manifest.json'), now, now);
}

/** Images of old recipes. */
function removeUnused(directory: string): void {
  if (!existsSync(directory)) return;
  for (const name of readdirSync(directory)) {
    const used = statSync(join(directory, name, 'manifest.json'), { throwIfNoEntry: false })?.mtimeMs;
    if (used !== undefined && Date.now() - used > UNUSED_MS && /^[0-9a-f]{16}$/.test(basename(name))) {
      rmSync(join(directory, name), { recursive: true, force: true });
    }
  }
}
