import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bundledNode } from '../../packaging/npm.ts';
import { unpack } from '../../scripts/lib/apt.mjs';
import { buildDrivers, type Drivers } from './drivers.ts';
import { prepareEntry } from './entry.ts';
import { ARM64_TOOLS } from './tools.ts';
import { initramfs } from './initramfs.ts';
import { collectModules, type Module } from './modules.ts';
import { releaseOf } from './kbuild.ts';
import { ARM64_FLAVOURS, fetchArm64Packages, fetchNewestKernel, fetchPackages, onlyIn, versionOf } from './packages.ts';
import type { Arm64Flavour } from './packages.ts';
import { checkPrograms, makeImage, makeRoot, type Versions } from './root.ts';

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
      await makeRoot(tree, {
        arch: 'x64',
        debs: packages.programs,
        putQemu10: (directory) => cpSync(qemu10, directory, { recursive: true, verbatimSymlinks: true }),
        node: process.execPath,
      });
      const programs = await checkPrograms(tree);
      cpSync(join(tree, 'bin/busybox'), join(complete, BUSYBOX));
      const linux = join(scratch, 'linux');
      await unpackKernel(packages.kernel, linux);
      const sets = { ...built, stock, reporting: { ...stock, ...built.reporting } };
      cpSync(onlyIn(join(linux, 'boot'), /^vmlinuz-/), join(complete, 'vmlinuz'));
      const release = releaseOf(packages.name);
      await writeInitramfs(
        join(complete, 'initramfs'),
        join(complete, BUSYBOX),
        join(linux, 'lib/modules', release),
        sets,
      );
      await makeImage(tree, join(complete, 'root.img'), 640);
      return { ...programs, linux: release };
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
      const modules = join(linux, 'usr/lib/modules', releaseOf(packages.name));
      cpSync(join(modules, 'vmlinuz'), join(complete, 'vmlinuz'));
      await writeInitramfs(join(complete, 'initramfs'), busybox, modules, sets);
      return { linux: releaseOf(packages.name) };
    },
  });
  return {
    kernel: join(directory, 'vmlinuz'),
    initramfs: join(directory, 'initramfs'),
    root: image.root,
    versions: { ...image.versions, ...versions },
  };
}

/**
 * The same for aarch64, with Linux 6.12 for pages of 4 and of 16 KiB, Debian's compiler, and the Node of the packages. None of its
 * programs runs here, so their versions are those of the packages.
 */
export async function prepareArm64(flavour: Arm64Flavour, say: (text: string) => void): Promise<Image> {
  const { directory, versions } = await prepareEntry({
    title: 'root and Linux 6.12 of aarch64',
    programs: [],
    tools: ARM64_TOOLS,
    fill: async (complete, scratch) => {
      const packages = await fetchArm64Packages(join(scratch, 'apt'), say);
      say('making the root image of aarch64');
      const tree = join(scratch, 'root');
      mkdirSync(tree);
      const node = await bundledNode('arm64');
      const own = join(scratch, 'own');
      mkdirSync(own);
      await unpack(packages.ownBusybox, own);
      await makeRoot(tree, {
        arch: 'arm64',
        debs: packages.programs,
        putQemu10: (directory) => unpack(packages.qemu10, directory),
        node: join(node, 'bin/node'),
        busybox: onlyIn(join(own, 'bin'), /^busybox$/),
      });
      await makeImage(tree, join(complete, 'root.img'), 1280);
      for (const name of ARM64_FLAVOURS) {
        say(`compiling mdev, mtty, v1mem and v2log for ${name}`);
        const kernel = packages.kernels[name];
        const [build, linux] = [join(scratch, `build-${name}`), join(scratch, `linux-${name}`)];
        mkdirSync(build);
        const sets = await buildDrivers(['arm64'], kernel, build);
        await unpackKernel(kernel.kernel, linux);
        cpSync(onlyIn(join(linux, 'boot'), /^vmlinuz-/), join(complete, `vmlinuz-${name}`));
        const modules = join(linux, 'lib/modules', releaseOf(kernel.name));
        await writeInitramfs(join(complete, `initramfs-${name}`), join(tree, 'bin/busybox'), modules, sets);
      }
      return {
        node: `v${packageOf(node).version}`,
        qemu72: versionOf(packages.programs, 'qemu-system-x86'),
        qemu10: versionOf(packages.qemu10, 'qemu-system-x86'),
        linux: {
          arm64: releaseOf(packages.kernels.arm64.name),
          'arm64-16k': releaseOf(packages.kernels['arm64-16k'].name),
        },
      };
    },
  });
  return {
    kernel: join(directory, `vmlinuz-${flavour}`),
    initramfs: join(directory, `initramfs-${flavour}`),
    root: join(directory, 'root.img'),
    versions: { ...versions, linux: versions.linux[flavour] },
  };
}

const packageOf = (directory: string): { readonly version: string } =>
  JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')) as { version: string };

async function unpackKernel(debs: readonly string[], directory: string): Promise<void> {
  mkdirSync(directory);
  await unpack(debs, directory);
}

async function writeInitramfs(
  file: string,
  busybox: string,
  tree: string,
  sets: Readonly<Record<string, Drivers>>,
): Promise<void> {
  const modules: Record<string, Module[]> = {};
  for (const [set, drivers] of Object.entries(sets)) modules[set] = await collectModules(tree, drivers);
  writeFileSync(file, initramfs(busybox, modules));
}
