import {
  chmodSync,
  cpSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
} from 'node:fs';
import { rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { bundleCommand } from '../scripts/lib/bundle.mjs';
import { run } from '../scripts/lib/process.mjs';
import type { Arch } from './architectures.ts';
import { copyrightFile, partOf, type Part } from './licences.ts';
import { bundledNode, koffiLibrary } from './npm.ts';
import type { Product } from './product.ts';
import { bashCompletion } from './texts/bash.ts';
import { readDefinitions } from './texts/definitions.ts';
import { fishCompletion } from './texts/fish.ts';
import { manPages } from './texts/man.ts';
import { zshCompletion } from './texts/zsh.ts';

/** How files are laid out. */
export interface Layout {
  /** Where bin, lib and share are, from the root of the tree: `usr`, or nothing. */
  readonly prefix: string;
  /** Where zsh looks for functions of packages, below share. */
  readonly zsh: string;
  /** The Node that runs the command: a path of the system that it is installed on, or one that comes with it. */
  readonly node: 'bundled' | { readonly path: string };
  readonly arch: Arch;
}

/** Makes the tree of all that is installed. Its bytes, names, modes and times are the same wherever and whenever it is made. */
export async function makeTree(root: string, layout: Layout, product: Product): Promise<void> {
  const at = (...names: string[]): string => join(root, layout.prefix, ...names);
  const lib = at('lib', product.name);
  const doc = at('share/doc', product.name);
  mkdirSync(at('bin'), { recursive: true });
  mkdirSync(lib, { recursive: true });
  const parts = [...makePrograms(lib), await addKoffi(lib, layout)];
  if (layout.node === 'bundled') {
    parts.push(await addNode(lib, layout));
    write(at('bin', product.name), startedByOwnNode(product.name), 0o755);
  } else {
    const main = join(lib, 'main.js');
    writeFileSync(main, readFileSync(main, 'utf8').replace(/^#!.*\n/, `#!${layout.node.path}\n`));
    symlinkSync(`../lib/${product.name}/main.js`, at('bin', product.name));
  }
  await writeTexts(at('share'), layout, product);
  writeDocuments(doc);
  write(join(doc, 'copyright'), copyrightFile(product.name, join(layout.prefix, 'lib', product.name, '*.js'), parts));
  settle(root, product.epoch);
}

/** The programs, and the packages that are in them. */
function makePrograms(lib: string): Part[] {
  const packages = bundleCommand(lib, { koffi: 'beside' });
  rmSync(join(lib, 'LICENSES')); // they are in `copyright`, with the others
  return packages.map((directory) => partOf(directory));
}

async function addKoffi(lib: string, { arch, prefix }: Layout): Promise<Part> {
  cpSync(await koffiLibrary(arch), join(lib, 'koffi.node'));
  return partOf('node_modules/koffi', join(prefix, 'lib/vfio-shim/koffi.node'));
}

async function addNode(lib: string, { arch, prefix }: Layout): Promise<Part> {
  const node = await bundledNode(arch);
  cpSync(join(node, 'bin/node'), join(lib, 'node'));
  return { ...partOf(node, join(prefix, 'lib/vfio-shim/node')), name: 'Node.js' };
}

/** Of no fixed place: whoever has unpacked it may have put it anywhere, and a link to it elsewhere. */
function startedByOwnNode(name: string): string {
  return `#!/bin/sh
# Starts ${name} by the Node.js that comes with it.
self=$0
[ ! -L "$self" ] || self=$(readlink -f -- "$self")
case $self in
  */*) lib=\${self%/*}/../lib/${name} ;;
  *) lib=../lib/${name} ;;
esac
exec "$lib/node" "$lib/main.js" "$@"
`;
}

async function writeTexts(share: string, { zsh }: Layout, product: Product): Promise<void> {
  const definitions = await readDefinitions(product.version);
  for (const [name, text] of manPages(definitions, product)) {
    const page = join(share, 'man/man1', name);
    write(page, text);
    await run('gzip', ['-9n', page]);
  }
  write(join(share, 'bash-completion/completions', product.name), bashCompletion(definitions));
  write(join(share, zsh, `_${product.name}`), zshCompletion(definitions));
  write(join(share, 'fish/vendor_completions.d', `${product.name}.fish`), fishCompletion(definitions));
}

/** What people read; links to sources lead nowhere there. */
function writeDocuments(doc: string): void {
  mkdirSync(doc, { recursive: true });
  for (const name of ['README.md', 'SECURITY.md', 'CHANGELOG.md', 'docs', 'examples']) {
    cpSync(name, join(doc, name), { recursive: true });
  }
}

function write(path: string, text: string, mode = 0o644): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text, { mode });
}

/** Gives everything below a directory, and itself, the mode that it is to have and one time. */
export function settle(path: string, epoch: number): void {
  const stat = lstatSync(path);
  if (stat.isDirectory()) for (const name of readdirSync(path)) settle(join(path, name), epoch);
  if (!stat.isSymbolicLink()) chmodSync(path, stat.isDirectory() || (stat.mode & 0o100) !== 0 ? 0o755 : 0o644);
  lutimesSync(path, epoch, epoch);
}

/** Fills a directory beside a file and lets `make` turn it into the file, which gets its name when it is complete. */
export async function makeFile(file: string, make: (tree: string, part: string) => Promise<void>): Promise<void> {
  mkdirSync(dirname(file), { recursive: true });
  const scratch = mkdtempSync(`${file}.part-`);
  try {
    const tree = join(scratch, 'tree');
    mkdirSync(tree);
    await make(tree, join(scratch, 'file'));
    renameSync(join(scratch, 'file'), file);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}
