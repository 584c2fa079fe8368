import { join } from 'node:path';
import { mkdirSync } from 'node:fs';
import { run } from '../scripts/lib/process.mjs';
import type { Arch } from './architectures.ts';
import type { Product } from './product.ts';
import { makeFile, makeTree, settle } from './tree.ts';

/** Makes an archive that is unpacked anywhere and needs nothing but glibc, and returns its path. */
export async function makeTarball(directory: string, arch: Arch, product: Product): Promise<string> {
  const name = `${product.name}-${product.version}-linux-${arch}`;
  const file = join(directory, `${name}.tar.xz`);
  await makeFile(file, async (tree, part) => {
    const top = join(tree, name);
    mkdirSync(top);
    await makeTree(top, { prefix: '', zsh: 'zsh/site-functions', node: 'bundled', arch }, product);
    settle(tree, product.epoch);
    const same = ['--sort=name', '--owner=root:0', '--group=root:0', `--mtime=@${product.epoch}`, '--format=gnu'];
    // as blocks of a fixed size, whose bytes do not depend on the number of processors that make them
    const xz = 'xz -1 -T2 --block-size=16MiB';
    await run('tar', ['-c', ...same, '-C', tree, '-I', xz, '-f', part, name]);
  });
  return file;
}
