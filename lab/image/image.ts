import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { unpack } from '../../scripts/lib/apt.mjs';
import { buildDrivers, type Drivers } from './drivers.ts';
import { prepareEntry } from './entry.ts';
import { initramfs } from './initramfs.ts';
import { collectModules, type Module } from './modules.ts';
import { fetchNewestKernel, fetchPackages, onlyIn } from './packages.ts';
import { makeImage, makeRoot, type Versions } from './root.ts';

/** What a guest boots from. */
export interface Image {
  readonly kernel: string;
  readonly initramfs: string;
  readonly root: string;
  readonly versions: Versions & { readonly linux: string };
}

/** The shell of the initramfs, kept for that of another kernel. */
const BUSYBOX = 'busybox';

/** The image in the cache: Debian 12's Linux 6.12 with a set of modules for each kind of guest, and the root. */
export async function prepareImage(qemu10: string, say: (text: string) => void): Promise<Image> {
  const { directory, versions } = await prepareEntry({
    title: 'root and Linux 6.12',
    programs: [process.execPath, join(qemu10, 'usr/bin/qemu-system-x86_64')],
    fill: async (complete, scratch) => {
      const packages = await fetchPackages(join(scratch, 'apt'), say);
      say('compiling mtty, v1mem, v2log, vfio and iommufd');
      const { stock, ...built } = await buildDrivers(['stock', 'reporting', 'iommufd'], packages, scratch);
      say('making the initramfs and the root image');
      const tree = join(scratch, 'root');
      mkdirSync(tree);
      const programs = await makeRoot(tree, { debs: packages.programs, qemu10 });
      cpSync(join(tree, 'bin/busybox'), join(complete, BUSYBOX));
      const linux = join(scratch, 'linux');
      await unpackKernel(packages.kernel, linux);
      const sets = { ...built, stock, reporting: { ...stock, ...built.reporting } };
      cpSync(onlyIn(join(linux, 'boot'), /^vmlinuz-/), join(complete, 'vmlinuz'));
      await writeInitramfs(complete, join(complete, BUSYBOX), join(linux, 'lib/modules', packages.release), sets);
      await makeImage(tree, join(complete, 'root.img'));
      return { ...programs, linux: packages.release };
    },
  });
  return {
    kernel: join(directory, 'vmlinuz'),
    initramfs: join(directory, 'initramfs'),
    root: join(directory, 'root.img'),
    versions,
  };
}

/** The same root with the newest kernel of Debian, which has the modules of the set `stock`. */
export async function prepareNewest(image: Image, qemu10: string, say: (text: string) => void): Promise<Image> {
  const busybox = join(image.root, '..', BUSYBOX);
  const { directory, versions } = await prepareEntry({
    title: 'newest Linux',
    programs: [busybox],
    fill: async (complete, scratch) => {
      const packages = await fetchNewestKernel(join(scratch, 'apt'), say);
      say('compiling mtty, v1mem and v2log');
      const libraries = join(qemu10, 'usr/lib/x86_64-linux-gnu'); // which are Debian 13's, as the headers are
      const sets = await buildDrivers(['stock'], packages, scratch, libraries);
      const linux = join(scratch, 'linux');
      await unpackKernel(packages.kernel, linux);
      const modules = join(linux, 'usr/lib/modules', packages.release);
      cpSync(join(modules, 'vmlinuz'), join(complete, 'vmlinuz'));
      await writeInitramfs(complete, busybox, modules, sets);
      return { linux: packages.release };
    },
  });
  return {
    kernel: join(directory, 'vmlinuz'),
    initramfs: join(directory, 'initramfs'),
    root: image.root,
    versions: { ...image.versions, ...versions },
  };
}

async function unpackKernel(debs: readonly string[], directory: string): Promise<void> {
  mkdirSync(directory);
  await unpack(debs, directory);
}

async function writeInitramfs(
  complete: string,
  busybox: string,
  tree: string,
  sets: Readonly<Record<string, Drivers>>,
): Promise<void> {
  const modules: Record<string, Module[]> = {};
  for (const [set, drivers] of Object.entries(sets)) modules[set] = await collectModules(tree, drivers);
  writeFileSync(join(complete, 'initramfs'), initramfs(busybox, modules));
}
