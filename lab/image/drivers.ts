import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { unpack } from '../../scripts/lib/apt.mjs';
import { run } from '../../scripts/lib/process.mjs';
import type { Packages } from './packages.ts';

const SOURCE = 'linux-source-6.12';
const ours = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

/** What is compiled together: the sources that modules are made of, from Linux's by their paths there and from this directory. */
interface Modules {
  readonly linux: readonly string[];
  readonly ours: readonly string[];
  readonly kbuild: readonly string[];
  readonly built: readonly string[];
}

const V2LOG = ['v2log.h', 'v2log-main.c', 'v2log-dma.c', 'v2log-migration.c'];
const V2LOG_KBUILD = 'v2log-y := v2log-main.o v2log-dma.o v2log-migration.o';

/** The kernel's sample driver, and two of ours: one that speaks v1, as no driver of Linux does any more, and one that logs DMA. */
const DRIVERS: Modules = {
  linux: ['samples/vfio-mdev/mtty.c'],
  ours: ['v1mem.c', ...V2LOG],
  kbuild: ['obj-m := mtty.o v1mem.o v2log.o', V2LOG_KBUILD],
  built: ['mtty', 'v1mem', 'v2log'],
};

/**
 * VFIO as it is where CONFIG_IOMMUFD_DRIVER is set, which Debian's kernels have not: then iova_bitmap.c is there, and
 * DMA_LOGGING_REPORT reports (include/linux/iova_bitmap.h, Linux 6.12). Its other modules are Debian's own.
 */
const REPORTING: Modules = {
  linux: ['drivers/vfio/*.c', 'drivers/vfio/*.h', 'drivers/iommu/iommufd/iova_bitmap.c'],
  ours: V2LOG,
  kbuild: [
    'ccflags-y := -DCONFIG_IOMMUFD_DRIVER=1',
    'obj-m := vfio.o v2log.o',
    'vfio-y := vfio_main.o iova_bitmap.o', // and what drivers/vfio/Makefile adds by Debian's configuration
    'vfio-$(CONFIG_VFIO_GROUP) += group.o',
    'vfio-$(CONFIG_VFIO_CONTAINER) += container.o',
    'vfio-$(CONFIG_VFIO_VIRQFD) += virqfd.o',
    'vfio-$(CONFIG_VFIO_DEBUGFS) += debugfs.o',
    V2LOG_KBUILD,
  ],
  built: ['vfio', 'v2log'],
};

/** Compiled modules, as files by their names. */
export interface Drivers {
  /** Those that Debian does not have. */
  readonly drivers: Readonly<Record<string, string>>;
  /** Those that take the place of Debian's and ours where DMA_LOGGING_REPORT is to report. */
  readonly reporting: Readonly<Record<string, string>>;
}

/**
 * Compiles modules against Debian's headers. These name their place and the compiler of the build machine in two files, which
 * are written anew.
 */
export async function buildDrivers({ release, headers, source }: Packages, scratch: string): Promise<Drivers> {
  const root = join(scratch, 'headers');
  const linux = join(scratch, 'source');
  for (const directory of [root, linux]) mkdirSync(directory);
  await unpack(headers, root);
  const build = join(root, 'usr/src', `linux-headers-${release}`);
  const common = join(root, 'usr/src', `linux-headers-${release.replace(/-amd64$/, '-common')}`);
  writeFileSync(join(build, 'Makefile'), `include ${common}/Makefile\n`);
  writeFileSync(join(build, '.kernelvariables'), `override ARCH = x86\noverride KERNELRELEASE = ${release}\n`);
  await extractSource(source, linux, [...DRIVERS.linux, ...REPORTING.linux]);
  return {
    drivers: await compile(DRIVERS, build, linux, join(scratch, 'drivers')),
    reporting: await compile(REPORTING, build, linux, join(scratch, 'reporting')),
  };
}

async function compile(
  modules: Modules,
  build: string,
  linux: string,
  directory: string,
): Promise<Readonly<Record<string, string>>> {
  mkdirSync(directory);
  await run('bash', ['-c', `cd "$1" && cp ${modules.linux.join(' ')} "$2"`, 'copy', linux, directory]);
  for (const name of modules.ours) cpSync(ours(name), join(directory, name));
  writeFileSync(join(directory, 'Kbuild'), `${modules.kbuild.join('\n')}\n`);
  // Module BTF needs pahole and the kernel's own, and nothing here reads it.
  const options = ['CC=gcc', 'CONFIG_DEBUG_INFO_BTF_MODULES=', `--jobs=${availableParallelism()}`];
  await run('make', ['-C', build, `M=${directory}`, ...options, 'modules']);
  const files = modules.built.map((name) => [name, join(directory, `${name}.ko`)] as const);
  for (const [, file] of files) await run('strip', ['--strip-debug', file]);
  return Object.fromEntries(files);
}

/** The package is an archive that holds an archive. */
async function extractSource(deb: string, directory: string, patterns: readonly string[]): Promise<void> {
  const script = `deb=$1 directory=$2; shift 2
    dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/src/${SOURCE}.tar.xz |
    tar -xJ -C "$directory" --strip-components=1 --wildcards --no-wildcards-match-slash "$@"`;
  await run('bash', [
    '-o',
    'pipefail',
    '-c',
    script,
    'extract',
    deb,
    directory,
    ...patterns.map((p) => `${SOURCE}/${p}`),
  ]);
}
