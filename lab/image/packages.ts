import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { PrivateApt } from '../../scripts/lib/apt.mjs';
import { Failure } from '../../scripts/lib/process.mjs';
import { Unavailable } from '../unavailable.ts';
import { releaseOf, type BuildPackages, type Flavour, type KernelName } from './kbuild.ts';

const SUITES = ['bookworm', 'bookworm-security'];
const SOURCE = 'linux-source-6.12';
/** The guest's programs: with what they depend on. The last is for the host's node. */
const PROGRAMS = ['qemu-system-x86', 'busybox-static', 'libstdc++6'];
/** What the project's own tests take besides, and what shows a package of its own. */
const TEST_PROGRAMS = ['gcc', 'libc6-dev', 'linux-libc-dev', 'xz-utils', 'tar', 'bash'];

/** Where Debian has the newest kernel for itself, and the kernel there. */
const NEWEST_SUITE = 'trixie-backports';
const NEWEST_KERNEL = 'linux-image-amd64';

/** Guests have a kernel of aarch64 with each size of pages that Debian has one for. */
export const ARM64_FLAVOURS = ['arm64', 'arm64-16k'] as const satisfies readonly Flavour[];
export type Arm64Flavour = (typeof ARM64_FLAVOURS)[number];

/** A kernel's packages, as files. */
export interface KernelPackages extends BuildPackages {
  /** The kernel and its modules. */
  readonly kernel: readonly string[];
}

/** Those that come from Debian 12. */
export interface Packages extends KernelPackages {
  readonly programs: readonly string[];
}

/** The same for aarch64, with QEMU 10.0, which is Debian 13's. */
export interface Arm64Packages {
  readonly kernels: Readonly<Record<Arm64Flavour, KernelPackages>>;
  readonly programs: readonly string[];
  readonly qemu10: readonly string[];
  /** For this machine, to be asked for its commands. */
  readonly ownBusybox: readonly string[];
}

/** Fetches everything that comes from Debian 12. */
export function fetchPackages(directory: string, say: (text: string) => void): Promise<Packages> {
  return orUnavailable(async () => {
    const apt = new PrivateApt(directory, { architecture: 'amd64', suites: SUITES, say });
    await apt.update();
    const name = await newestOf612(apt, 'amd64');
    say(`downloading Linux ${releaseOf(name)}, its headers and source, QEMU 7.2: about 320 MB`);
    const kernel = await fetchKernel(apt, name, [imageOf(name)], SOURCE);
    return { ...kernel, programs: await apt.downloadWithDependencies(PROGRAMS) };
  });
}

/** Fetches what a guest of aarch64 has. Kbuild's programs run on this machine. */
export function fetchArm64Packages(directory: string, say: (text: string) => void): Promise<Arm64Packages> {
  return orUnavailable(async () => {
    const apts = {
      own: new PrivateApt(join(directory, 'own'), { architecture: 'amd64', suites: SUITES, say }),
      arm64: new PrivateApt(join(directory, 'arm64'), { architecture: 'arm64', suites: SUITES, say }),
      trixie: new PrivateApt(join(directory, 'trixie'), { architecture: 'arm64', suites: ['trixie'], say }),
    };
    for (const apt of Object.values(apts)) await apt.update();
    say('downloading two kernels of aarch64, their headers and source, QEMU 7.2 and 10.0, a compiler: about 550 MB');
    const fetchFlavour = async (flavour: Arm64Flavour): Promise<KernelPackages> => {
      const name = await newestOf612(apts.arm64, flavour);
      return fetchKernel(apts.arm64, name, [imageOf(name)], SOURCE, apts.own);
    };
    return {
      kernels: { arm64: await fetchFlavour('arm64'), 'arm64-16k': await fetchFlavour('arm64-16k') },
      programs: await apts.arm64.downloadWithDependencies([...PROGRAMS, ...TEST_PROGRAMS]),
      qemu10: await apts.trixie.downloadWithDependencies(['qemu-system-x86']),
      ownBusybox: await apts.own.downloadWithDependencies(['busybox-static']),
    };
  });
}

/** Fetches the newest kernel that Debian has for its stable release. It is one package for the kernel, and one for its modules. */
export function fetchNewestKernel(directory: string, say: (text: string) => void): Promise<KernelPackages> {
  return orUnavailable(async () => {
    const apt = new PrivateApt(directory, { architecture: 'amd64', suites: [NEWEST_SUITE], say });
    await apt.update();
    const name = await kernelBehind(apt, NEWEST_KERNEL, 'amd64');
    const release = releaseOf(name);
    const [version = ''] = /^\d+\.\d+/.exec(release) ?? [];
    say(`downloading Linux ${release}, its headers and source: about 300 MB`);
    const kernel = [`linux-binary-${release}`, `linux-modules-${release}`, `linux-base-${release}`];
    return fetchKernel(apt, name, kernel, `linux-source-${version}`);
  });
}

const newestOf612 = (apt: PrivateApt, flavour: Flavour): Promise<KernelName> =>
  kernelBehind(apt, `linux-image-6.12-${flavour}`, flavour);

const imageOf = (name: KernelName): string => `linux-image-${releaseOf(name)}`;

/** The kernel that a package depends on, which is the newest: its package's name has the version in it. */
async function kernelBehind(apt: PrivateApt, metapackage: string, flavour: Flavour): Promise<KernelName> {
  const [begin, end] = ['linux-image-', `-${flavour}`];
  const image = (await apt.dependencies(metapackage)).find(
    (name) => /^linux-image-\d/.test(name) && name.endsWith(end),
  );
  if (image === undefined) throw new Failure(`${metapackage} does not depend on a kernel`);
  return { version: image.slice(begin.length, -end.length), flavour };
}

/** `tools` has kbuild's programs for this machine. */
async function fetchKernel(
  apt: PrivateApt,
  name: KernelName,
  kernel: readonly string[],
  source: string,
  tools = apt,
): Promise<KernelPackages> {
  const headers = [`linux-headers-${releaseOf(name)}`, `linux-headers-${name.version}-common`];
  const kbuild = `linux-kbuild-${name.version}`;
  const debs = [...(await apt.download([...kernel, ...headers, source])), ...(await tools.download([kbuild]))];
  const find = (name: string): string => {
    const found = debs.find((path) => path.split('/').at(-1)?.startsWith(`${name}_`));
    if (found === undefined) throw new Failure(`apt did not download ${name}`);
    return found;
  };
  return { name, kernel: kernel.map(find), headers: [...headers, kbuild].map(find), source: find(source) };
}

/** The upstream version in a package's file name: `libvirt-daemon_9.0.0-4+deb12u2_amd64.deb`, an epoch being `1%3a`. */
export function versionOf(debs: readonly string[], name: string): string {
  const pattern = new RegExp(String.raw`/${name}_(?:\d+%3a)?([\d.]+)[^/]*$`);
  const version = debs.map((deb) => pattern.exec(deb)?.[1]).find((found) => found !== undefined);
  if (version === undefined) throw new Failure(`apt did not download ${name}`);
  return version;
}

async function orUnavailable<T>(fetch: () => Promise<T>): Promise<T> {
  try {
    return await fetch();
  } catch (error) {
    if (error instanceof Failure) throw new Unavailable(error.message, { cause: error });
    throw error;
  }
}

/** The only entry of a directory whose name matches. */
export function onlyIn(directory: string, pattern: RegExp): string {
  const [name, ...more] = readdirSync(directory).filter((candidate) => pattern.test(candidate));
  if (name === undefined || more.length > 0) throw new Error(`${directory}: not exactly one ${pattern.source}`);
  return join(directory, name);
}
