import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { PrivateApt } from '../../scripts/lib/apt.mjs';
import { Failure } from '../../scripts/lib/process.mjs';
import { Unavailable } from '../unavailable.ts';

const SUITES = ['bookworm', 'bookworm-security'];
/** Depends on the newest build of 6.12, whose package name has the version in it. */
const KERNEL = 'linux-image-6.12-amd64';
const SOURCE = 'linux-source-6.12';
/** The guest's programs: with what they depend on. The last is for the host's node. */
const PROGRAMS = ['qemu-system-x86', 'busybox-static', 'libstdc++6'];

/** Downloaded packages, as files. */
export interface Packages {
  /** What `uname -r` says, e.g. `6.12.117+deb12-amd64`. */
  readonly release: string;
  readonly kernel: string;
  /** Headers for this configuration, those common to all, and kbuild's programs. */
  readonly headers: readonly string[];
  readonly source: string;
  readonly programs: readonly string[];
}

/** Fetches everything that comes from Debian 12. */
export async function fetchPackages(directory: string, say: (text: string) => void): Promise<Packages> {
  try {
    return await fetch(directory, say);
  } catch (error) {
    if (error instanceof Failure) throw new Unavailable(error.message, { cause: error });
    throw error;
  }
}

async function fetch(directory: string, say: (text: string) => void): Promise<Packages> {
  const apt = new PrivateApt(directory, { architecture: 'amd64', suites: SUITES, say });
  await apt.update();
  const image = (await apt.dependencies(KERNEL)).find((name) => name.startsWith('linux-image-6.12.'));
  if (image === undefined) throw new Failure(`${KERNEL} does not depend on a kernel`);
  const release = image.slice('linux-image-'.length);
  const version = release.replace(/-amd64$/, '');
  say(`downloading Linux ${release}, its headers and source, QEMU 7.2: about 320 MB`);
  const headers = [`linux-headers-${release}`, `linux-headers-${version}-common`, `linux-kbuild-${version}`];
  const debs = await apt.download([image, ...headers, SOURCE]);
  const find = (name: string): string => {
    const found = debs.find((path) => path.split('/').at(-1)?.startsWith(`${name}_`));
    if (found === undefined) throw new Failure(`apt did not download ${name}`);
    return found;
  };
  return {
    release,
    kernel: find(image),
    headers: headers.map(find),
    source: find(SOURCE),
    programs: await apt.downloadWithDependencies(PROGRAMS),
  };
}

/** The only entry of a directory whose name matches. */
export function onlyIn(directory: string, pattern: RegExp): string {
  const [name, ...more] = readdirSync(directory).filter((candidate) => pattern.test(candidate));
  if (name === undefined || more.length > 0) throw new Error(`${directory}: not exactly one ${pattern.source}`);
  return join(directory, name);
}
