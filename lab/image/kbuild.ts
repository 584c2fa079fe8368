import { chmodSync, cpSync, mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { unpack } from '../../scripts/lib/apt.mjs';
import { run } from '../../scripts/lib/process.mjs';

/** Compiles modules of the kernel, from Linux's sources and this directory's, against Debian's headers. */

/** A processor, as Linux's Makefile names it, and what the names of the programs that compile for it begin with on x86-64. */
interface Processor {
  readonly arch: string;
  readonly cross: string;
}

/** What Debian's kernels are configured for: a processor, and where it has a choice the size of a page. */
export type Flavour = 'amd64' | 'arm64' | 'arm64-16k';

const PROCESSORS: Readonly<Record<Flavour, Processor>> = {
  amd64: { arch: 'x86', cross: '' },
  arm64: { arch: 'arm64', cross: 'aarch64-linux-gnu-' },
  'arm64-16k': { arch: 'arm64', cross: 'aarch64-linux-gnu-' },
};

/** A kernel of Debian's. */
export interface KernelName {
  /** For example `6.12.117+deb12`. */
  readonly version: string;
  readonly flavour: Flavour;
}

/** What `uname -r` says, e.g. `6.12.117+deb12-amd64`. */
export const releaseOf = ({ version, flavour }: KernelName): string => `${version}-${flavour}`;

/** What that takes, as packages' files. */
export interface BuildPackages {
  readonly name: KernelName;
  /** Headers for this configuration, those common to all, and kbuild's programs. */
  readonly headers: readonly string[];
  /** `linux-source-VERSION`. */
  readonly source: string;
}

/** What is compiled together, in a directory with Linux's sources by their paths there and ours beside them. */
export interface Modules {
  readonly linux: readonly string[];
  readonly ours: readonly string[];
  readonly kbuild: readonly string[];
}

/** Where Debian's headers and Linux's sources are unpacked. */
export interface Build {
  readonly processor: Processor;
  readonly headers: string;
  readonly linux: string;
}

/** kbuild's programs that take a newer C library than an older Debian has. */
const TOOLS = ['scripts/mod/modpost.real-lsb-64', 'tools/objtool/objtool.real-x86'];

/**
 * Options of make. Module BTF needs pahole and the kernel's own, and nothing here reads it. GCC knows a minimum of alignment from 14
 * on, and has another option for it otherwise.
 */
const OPTIONS = ['CONFIG_DEBUG_INFO_BTF_MODULES=', 'CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT='];

const ours = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

/**
 * Unpacks headers, and the sources that match. The headers name their place and the compiler of the build machine in two files,
 * which are written anew. If `tools` names the libraries of the headers' own Debian, kbuild's programs run with these.
 */
export async function prepareBuild(
  { name, headers, source }: BuildPackages,
  sources: readonly string[],
  scratch: string,
  tools?: string,
): Promise<Build> {
  const root = join(scratch, 'headers');
  const linux = join(scratch, 'source');
  for (const directory of [root, linux]) mkdirSync(directory);
  await unpack(headers, root);
  const [processor, release] = [PROCESSORS[name.flavour], releaseOf(name)];
  const build = join(root, 'usr/src', `linux-headers-${release}`);
  const common = join(root, 'usr/src', `linux-headers-${name.version}-common`);
  writeFileSync(join(build, 'Makefile'), `KBUILD_OUTPUT = ${build}\ninclude ${common}/Makefile\n`);
  writeFileSync(
    join(build, '.kernelvariables'),
    `override ARCH = ${processor.arch}\noverride KERNELRELEASE = ${release}\n`,
  );
  if (tools !== undefined) {
    const kbuild = join(root, 'usr/lib', `linux-kbuild-${name.version}`);
    for (const tool of TOOLS) runWith(tools, join(kbuild, tool));
  }
  await extractSource(source, linux, sources);
  return { processor, headers: build, linux };
}

/** Puts a script into a program's place that runs it with the loader and the libraries of a directory. */
function runWith(libraries: string, program: string): void {
  renameSync(program, `${program}.elf`);
  const loader = join(libraries, 'ld-linux-x86-64.so.2');
  writeFileSync(
    program,
    `#!/bin/sh\nexec '${loader}' --inhibit-cache --library-path '${libraries}' '${program}.elf' "$@"\n`,
  );
  chmodSync(program, 0o755);
}

/** Compiles modules in a new directory; returns their files by their names. */
export async function compile(
  modules: Modules,
  { processor: { cross }, headers, linux }: Build,
  directory: string,
): Promise<Readonly<Record<string, string>>> {
  mkdirSync(directory);
  const copy = `cd "$1" && cp --parents ${modules.linux.join(' ')} "$2"`;
  await run('bash', ['-c', copy, 'copy', linux, directory]);
  for (const name of modules.ours) cpSync(ours(name), join(directory, name));
  writeFileSync(join(directory, 'Kbuild'), `${modules.kbuild.join('\n')}\n`);
  const compiler = [`CC=${cross}gcc`, `CROSS_COMPILE=${cross}`];
  const parallel = `--jobs=${availableParallelism()}`;
  await run('make', ['-C', headers, `M=${directory}`, ...compiler, ...OPTIONS, parallel, 'modules']);
  const files = readdirSync(directory).filter((name) => name.endsWith('.ko'));
  for (const file of files) await run(`${cross}strip`, ['--strip-debug', join(directory, file)]);
  return Object.fromEntries(files.map((file) => [file.slice(0, -'.ko'.length), join(directory, file)]));
}

/** The package is an archive that holds an archive. */
async function extractSource(deb: string, directory: string, patterns: readonly string[]): Promise<void> {
  const [name = ''] = basename(deb).split('_');
  const script = `deb=$1 name=$2 directory=$3; shift 3
    dpkg-deb --fsys-tarfile "$deb" | tar -xO "./usr/src/$name.tar.xz" |
    tar -xJ -C "$directory" --strip-components=1 --wildcards --no-wildcards-match-slash "$@"`;
  const paths = patterns.map((pattern) => `${name}/${pattern}`);
  await run('bash', ['-o', 'pipefail', '-c', script, 'extract', deb, name, directory, ...paths]);
}
