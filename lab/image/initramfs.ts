import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { cpio, type Entry } from './cpio.ts';
import type { Module } from './modules.ts';

const INIT = fileURLToPath(new URL('init.sh', import.meta.url));

/**
 * The initramfs: busybox, and sets of modules, each with a list of their order. A module that several sets have is there once. It is
 * not compressed, since emulation would pay for that.
 */
export function initramfs(busybox: string, sets: Readonly<Record<string, readonly Module[]>>): Buffer {
  const directories = ['bin', 'dev', 'modules', ...Object.keys(sets).map((set) => `modules/${set}`)];
  const files: { readonly path: string; readonly data: Buffer }[] = [];
  const orders = Object.entries(sets).map(([set, modules]): Entry => {
    const paths = modules.map(({ name, data }) => {
      const path = `${set}/${name}.ko`;
      const same = files.find((file) => file.data.equals(data));
      if (same === undefined) files.push({ path, data });
      return same?.path ?? path;
    });
    return {
      path: `modules/${set}/order`,
      kind: 'file',
      data: Buffer.from(paths.map((path) => `${path}\n`).join('')),
    };
  });
  return cpio([
    ...[...directories, 'proc', 'root', 'sys'].map((path): Entry => ({ path, kind: 'directory' })),
    { path: 'bin/busybox', kind: 'file', data: readFileSync(busybox), executable: true },
    { path: 'bin/sh', kind: 'link', target: 'busybox' },
    { path: 'init', kind: 'file', data: readFileSync(INIT), executable: true },
    ...orders,
    ...files.map(({ path, data }): Entry => ({ path: `modules/${path}`, kind: 'file', data })),
  ]);
}
