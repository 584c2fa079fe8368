import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { unpack } from '../../scripts/lib/apt.mjs';
import { run } from '../../scripts/lib/process.mjs';
import type { Packages } from './packages.ts';

const FILE = 'linux-source-6.12/samples/vfio-mdev/mtty.c';

/** A driver of ours that speaks v1, as no driver of Linux does any more. */
const OURS = fileURLToPath(new URL('./v1mem.c', import.meta.url));

/**
 * Compiles the drivers that Debian does not have, against Debian's headers: the kernel's sample driver mtty, and v1mem;
 * returns the modules by their names. The headers name their place and the compiler of the build machine in two files, which
 * are written anew.
 */
export async function buildDrivers(
  { release, headers, source }: Packages,
  scratch: string,
): Promise<Readonly<Record<'mtty' | 'v1mem', string>>> {
  const root = join(scratch, 'headers');
  const module = join(scratch, 'drivers');
  for (const directory of [root, module]) mkdirSync(directory);
  await unpack(headers, root);
  const build = join(root, 'usr/src', `linux-headers-${release}`);
  const common = join(root, 'usr/src', `linux-headers-${release.replace(/-amd64$/, '-common')}`);
  writeFileSync(join(build, 'Makefile'), `include ${common}/Makefile\n`);
  writeFileSync(join(build, '.kernelvariables'), `override ARCH = x86\noverride KERNELRELEASE = ${release}\n`);

  await extractSource(source, module);
  cpSync(OURS, join(module, 'v1mem.c'));
  writeFileSync(join(module, 'Kbuild'), 'obj-m := mtty.o v1mem.o\n');
  // Module BTF needs pahole and the kernel's own, and nothing here reads it.
  await run('make', ['-C', build, `M=${module}`, 'CC=gcc', 'CONFIG_DEBUG_INFO_BTF_MODULES=', 'modules']);
  const built = { mtty: join(module, 'mtty.ko'), v1mem: join(module, 'v1mem.ko') };
  for (const file of Object.values(built)) await run('strip', ['--strip-debug', file]);
  return built;
}

/** The package is an archive that holds an archive. tar stops when it has the file, which breaks the pipe behind it. */
async function extractSource(deb: string, directory: string): Promise<void> {
  const script = `dpkg-deb --fsys-tarfile "$1" | tar -xO ./usr/src/linux-source-6.12.tar.xz |
    tar -xJ -C "$2" --occurrence=1 --strip-components=3 ${FILE}`;
  await run('bash', ['-c', script, 'extract', deb, directory]);
}
