import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { PrivateApt } from '../../scripts/lib/apt.mjs';
import { Failure } from '../../scripts/lib/process.mjs';
import { Unavailable } from '../unavailable.ts';
import type { BuildPackages } from './kbuild.ts';

const SUITES = ['bookworm', 'bookworm-security'];
/** Depends on the newest build of 6.12, whose package name has the version in it. */
const KERNEL = 'linux-image-6.12-amd64';
const SOURCE = 'linux-source-6.12';
/** The guest's programs: with what they depend on. The last is for the host's node. */
const PROGRAMS = ['qemu-system-x86', 'busybox-static', 'libstdc++6'];

/** Where Debian has the newest kernel for itself, and the kernel there. */
const NEWEST_SUITE = 'trixie-backports';
const NEWEST_KERNEL = 'linux-image-amd64';

/** A kernel's packages, as files. */
export interface KernelPackages extends BuildPackages {
  /** The kernel and its modules. */
  readonly kernel: readonly string[];
}

/** Those that come from Debian 12. */
export interface Packages extends KernelPackages {
  readonly programs: readonly string[];
}

/** Fetches everything that comes from Debian 12. */
export function fetchPackages(directory: string, say: (text: string) => void): Promise<Packages> {
  return orUnavailable(async () => {
    const apt = new PrivateApt(directory, { architecture: 'amd64', suites: SUITES, say });
    await apt.update();
    const image = (await apt.dependencies(KERNEL)).find((name) => name.startsWith('linux-image-6.12.'));
    if (image === undefined) throw new Failure(`${KERNEL} does not depend on a kernel`);
    const release = image.slice('linux-image-'.length);
    say(`downloading Linux ${release}, its headers and source, QEMU 7.2: about 320 MB`);
    const kernel = await fetchKernel(apt, release, [image], SOURCE);
    return { ...kernel, programs: await apt.downloadWithDependencies(PROGRAMS) };
  });
}

/** Fetches the newest kernel that Debian has for its stable release. It is one package for the kernel, and one for its modules. */
export function fetchNewestKernel(directory: string, say: (text: string) => void): Promise<KernelPackages> {
  return orUnavailable(async () => {
    const apt = new PrivateApt(directory, { architecture: 'amd64', suites: [NEWEST_SUITE], say });
    await apt.update();
    const image = (await apt.dependencies(NEWEST_KERNEL)).find((name) => /^linux-image-\d/.test(name));
    if (image === undefined) throw new Failure(`${NEWEST_KERNEL} of ${NEWEST_SUITE} does not depend on a kernel`);
    const release = image.slice('linux-image-'.length);
    const [version = ''] = /^\d+\.\d+/.exec(release) ?? [];
    say(`downloading Linux ${release}, its headers and source: about 300 MB`);
    const kernel = [`linux-binary-${release}`, `linux-modules-${release}`, `linux-base-${release}`];
    return fetchKernel(apt, release, kernel, `linux-source-${version}`);
  });
}

async function fetchKernel(
  apt: PrivateApt,
  release: string,
  kernel: readonly string[],
  source: string,
): Promise<KernelPackages> {
  const version = release.replace(/-amd64$/, '');
  const headers = [`linux-headers-${release}`, `linux-headers-${version}-common`, `linux-kbuild-${version}`];
  const debs = await apt.download([...kernel, ...headers, source]);
  const find = (name: string): string => {
    const found = debs.find((path) => path.split('/').at(-1)?.startsWith(`${name}_`));
    if (found === undefined) throw new Failure(`apt did not download ${name}`);
    return found;
  };
  return { release, kernel: kernel.map(find), headers: headers.map(find), source: find(source) };
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
