import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { cpio, type Entry } from './cpio.ts';
import type { Module } from './modules.ts';

const INIT = fileURLToPath(new URL('init.sh', import.meta.url));

/** The initramfs: busybox, the modules and a list of their order. It is not compressed, since emulation would pay for that. */
export function initramfs(busybox: string, modules: readonly Module[]): Buffer {
  const directories = ['bin', 'dev', 'modules', 'proc', 'root', 'sys'];
  return cpio([
    ...directories.map((path): Entry => ({ path, kind: 'directory' })),
    { path: 'bin/busybox', kind: 'file', data: readFileSync(busybox), executable: true },
    { path: 'bin/sh', kind: 'link', target: 'busybox' },
    { path: 'init', kind: 'file', data: readFileSync(INIT), executable: true },
    { path: 'modules/order', kind: 'file', data: Buffer.from(modules.map(({ name }) => `${name}\n`).join('')) },
    ...modules.map(({ name, data }): Entry => ({ path: `modules/${name}.ko`, kind: 'file', data })),
  ]);
}
