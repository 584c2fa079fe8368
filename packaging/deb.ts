import { createHash } from 'node:crypto';
import { lstatSync, mkdirSync, readFileSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../scripts/lib/process.mjs';
import { ARCHES, type Arch } from './architectures.ts';
import type { Product } from './product.ts';
import { makeFile, makeTree, settle, type Layout } from './tree.ts';

/** A package of Debian: with the distribution's Node, or with one of its own. */
export type Flavour = 'vfio-shim' | 'vfio-shim-standalone';

/** What Debian calls the first package of a version. */
const REVISION = 1;

/** Makes a package in a directory and returns its path. Debian's tools take the time from SOURCE_DATE_EPOCH. */
export async function makeDeb(directory: string, flavour: Flavour, arch: Arch, product: Product): Promise<string> {
  const file = join(directory, `${flavour}_${product.version}-${REVISION}_${ARCHES[arch].debian}.deb`);
  const isStandalone = flavour === 'vfio-shim-standalone';
  const layout: Layout = {
    prefix: 'usr',
    zsh: 'zsh/vendor-completions',
    node: isStandalone ? 'bundled' : { path: '/usr/bin/node' },
    arch,
  };
  await makeFile(file, async (tree, part) => {
    await makeTree(tree, layout, product);
    await addChangelogs(join(tree, 'usr/share/doc', product.name), flavour, product);
    const docs = join(tree, 'usr/share/doc'); // a package's own are under its name
    renameSync(join(docs, product.name), join(docs, flavour));
    settle(tree, product.epoch);
    writeControl(tree, flavour, arch, product);
    // xz's first level: Node's executable takes a minute and more for each higher one, for a tenth of the size
    const level = isStandalone ? ['-z1'] : [];
    const options = ['--root-owner-group', '-Zxz', ...level, '--build', tree, part];
    await run('dpkg-deb', options, { env: { SOURCE_DATE_EPOCH: String(product.epoch) } });
  });
  return file;
}

/** Its own and that of the package, in Debian's form (deb-changelog(5)). */
async function addChangelogs(doc: string, flavour: Flavour, { version, maintainer, epoch }: Product): Promise<void> {
  const own = join(doc, 'changelog');
  renameSync(join(doc, 'CHANGELOG.md'), own);
  const debian = join(doc, 'changelog.Debian');
  const date = new Date(epoch * 1000).toUTCString().replace('GMT', '+0000');
  writeFileSync(
    debian,
    `${flavour} (${version}-${REVISION}) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- ${maintainer}  ${date}\n`,
  );
  await run('gzip', ['-9n', own, debian]);
}

function writeControl(tree: string, flavour: Flavour, arch: Arch, product: Product): void {
  const control = join(tree, 'DEBIAN');
  const files = filesBelow(tree);
  mkdirSync(control);
  const md5 = (path: string): string =>
    createHash('md5')
      .update(readFileSync(join(tree, path)))
      .digest('hex');
  const sums = files.filter((path) => lstatSync(join(tree, path)).isFile()).map((path) => `${md5(path)}  ${path}\n`);
  writeFileSync(join(control, 'md5sums'), sums.join(''));
  writeFileSync(
    join(control, 'control'),
    controlText(flavour, arch, product, installedKilobytes(tree, files), librariesOf(tree)),
  );
  settle(control, product.epoch);
}

function controlText(
  flavour: Flavour,
  arch: Arch,
  product: Product,
  size: number,
  libraries: readonly string[],
): string {
  const isStandalone = flavour === 'vfio-shim-standalone';
  const depends = [...(isStandalone ? [] : ['nodejs (>= 18.19)']), ...libraries];
  const alternative = `Provides: vfio-shim (= ${product.version}-${REVISION})\nConflicts: vfio-shim\nReplaces: vfio-shim\n`;
  const node = isStandalone ? '\n .\n This package brings a Node.js of its own and needs no other.' : '';
  return `Package: ${flavour}
Version: ${product.version}-${REVISION}
Architecture: ${ARCHES[arch].debian}
Maintainer: ${product.maintainer}
Installed-Size: ${size}
Depends: ${depends.join(', ')}
Suggests: qemu-system-x86
${isStandalone ? alternative : ''}Section: admin
Priority: optional
Description: bridge between the two VFIO device migration protocols
 Lets an unmodified VMM, such as QEMU, migrate VFIO devices whose drivers
 speak the other of Linux's two migration protocols: an old VMM those of a
 new kernel, and a new VMM those of an old one. Saves the state of a device
 to a file and restores it, and emulates devices for tests.${node}
`;
}

/** By the size of files in blocks of a kilobyte, and one for each other entry (deb-substvars(5), Installed-Size). */
function installedKilobytes(tree: string, files: readonly string[]): number {
  const sizes = files
    .map((path) => lstatSync(join(tree, path)))
    .map((stat) => (stat.isFile() ? Math.ceil(stat.size / 1024) : 1));
  return sizes.reduce((sum, size) => sum + size, 0);
}

/** The packages of the libraries that the native files name, with the newest version of glibc's symbols that they use. */
function librariesOf(tree: string): string[] {
  const lib = join(tree, 'usr/lib/vfio-shim');
  const native = ['koffi.node', 'node'].filter((name) => readdirSync(lib).includes(name));
  const text = native.map((name) => readFileSync(join(lib, name), 'latin1')).join('');
  const minors = Array.from(text.matchAll(/\0GLIBC_2\.(\d+)(?=[\0.])/g), ([, minor]) => Number(minor));
  const needs = (library: string): boolean => text.includes(`\0${library}\0`);
  return [
    `libc6 (>= 2.${minors.reduce((newest, minor) => Math.max(newest, minor), 17)})`,
    ...(needs('libgcc_s.so.1') ? ['libgcc-s1'] : []),
    ...(needs('libstdc++.so.6') ? ['libstdc++6'] : []),
  ];
}

/** All that lies below a directory, sorted, without the directory. */
function filesBelow(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' }).toSorted();
}
