import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { cpio, type Entry } from './cpio.ts';
import type { Module } from './modules.ts';

const INIT = fileURLToPath(new URL('init.sh', import.meta.url));

/** The initramfs: busybox, the modules and lists of their order. It is not compressed, since emulation would pay for that. */
export function initramfs(busybox: string, modules: readonly Module[]): Buffer {
  const directories = ['bin', 'dev', 'modules', 'modules/reporting', 'proc', 'root', 'sys'];
  return cpio([
    ...directories.map((path): Entry => ({ path, kind: 'directory' })),
    { path: 'bin/busybox', kind: 'file', data: readFileSync(busybox), executable: true },
    { path: 'bin/sh', kind: 'link', target: 'busybox' },
    { path: 'init', kind: 'file', data: readFileSync(INIT), executable: true },
    orderOf(
      'order',
      modules.map(({ name }) => name),
    ),
    orderOf(
      'reporting/order',
      modules.map(({ name, reporting }) => (reporting === undefined ? name : `reporting/${name}`)),
    ),
    ...modules.flatMap(({ name, data, reporting }) => [
      moduleFile(name, data),
      ...(reporting === undefined ? [] : [moduleFile(`reporting/${name}`, reporting)]),
    ]),
  ]);
}

const orderOf = (path: string, names: readonly string[]): Entry => ({
  path: `modules/${path}`,
  kind: 'file',
  data: Buffer.from(names.map((name) => `${name}\n`).join('')),
});

const moduleFile = (name: string, data: Buffer): Entry => ({ path: `modules/${name}.ko`, kind: 'file', data });
