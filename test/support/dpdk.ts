import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compiledWith } from './compiler.ts';

const SCRIPT = fileURLToPath(new URL('../../scripts/dpdk.mjs', import.meta.url));

/** The suites of Debian whose DPDK is tried, and its release. */
export const DPDK = { bookworm: '22.11', trixie: '24.11' } as const;
export type DpdkSuite = keyof typeof DPDK;

/** A DPDK that was fetched: its directory, or why it is not there. */
export type FoundDpdk = { readonly root: string } | { readonly missing: string };

/** DPDK of a suite. */
export function findDpdk(suite: DpdkSuite): FoundDpdk {
  const { status, stdout, stderr } = spawnSync(process.execPath, [SCRIPT, '--cached', suite], { encoding: 'utf8' });
  return status === 0 ? { root: stdout.trim() } : { missing: stderr.trim() };
}

/** Compiles `test/interpose/c/dpdk.c` for it; runs with its libraries, the C library included. */
export function dpdkProgram(root: string): string {
  const triplet = readdirSync(join(root, 'usr/lib')).find((name) => name.endsWith('-linux-gnu')) ?? '';
  const lib = join(root, 'usr/lib', triplet);
  const include = join(root, 'usr/include');
  const libraries = readdirSync(lib).filter((name) => /^librte_\w+\.so\.\d+$/.test(name));
  const loader = readdirSync(lib).find((name) => /^ld-linux-.*\.so\.\d+$/.test(name)) ?? '';
  return compiledWith('dpdk', [
    `--sysroot=${root}`,
    `-B${lib}/`, // gcc looks for the host's first
    `-L${lib}`,
    ...(process.arch === 'x64' ? ['-march=corei7'] : []), // as its pkg-config has it
    '-DALLOW_EXPERIMENTAL_API', // rte_intr_type_get
    ...[join(include, triplet, 'dpdk'), join(include, 'dpdk')].flatMap((path) => ['-isystem', path]),
    '-include',
    'rte_config.h',
    ...libraries.map((name) => join(lib, name)),
    `-Wl,--disable-new-dtags,-rpath,${lib},-rpath-link,${lib},--dynamic-linker,${join(lib, loader)}`,
  ]);
}
