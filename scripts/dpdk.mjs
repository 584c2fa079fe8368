// Fetches DPDK's EAL and PCI bus of a Debian suite, with what a program needs to be compiled for them and to run on them, without touching
// the host's packages: through a private apt state, unpacked into a cache directory of that suite. Prints the directory on stdout; with
// --cached only if it is there already.
import { existsSync, mkdirSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { PrivateApt, unpack } from './lib/apt.mjs';
import { cachePath, makeEntry } from './lib/cache.mjs';
import { ARCHITECTURES } from './lib/own-loader.mjs';
import { Failure, runScript } from './lib/process.mjs';

/** Each has a long-term release, of the year before the suite's. */
const SUITES = ['bookworm', 'trixie', 'sid'];
/** Its headers, which depend on its libraries, and those of the C library that they were built for. */
const DEVELOPMENT = 'libdpdk-dev';
const C_LIBRARY = ['libc6-dev', 'linux-libc-dev'];
/** Its scripts: dpdk-devbind.py. */
const TOOLS = 'dpdk';
/** The libraries are named by their ABI: `librte-eal23`. */
const LIBRARY = /^librte-(eal|bus-pci)\d+$/;

const say = (text) => process.stderr.write(`dpdk: ${text}\n`);

async function main(args) {
  const cachedOnly = args[0] === '--cached';
  const [suite = '', ...more] = cachedOnly ? args.slice(1) : args;
  if (!SUITES.includes(suite) || more.length > 0) {
    throw new Failure(`usage: node scripts/dpdk.mjs [--cached] ${SUITES.join('|')}`);
  }
  const arch = ARCHITECTURES[process.arch];
  if (process.platform !== 'linux' || arch === undefined) throw new Failure(`${process.platform} on ${process.arch}`);
  const home = cachePath(`dpdk-${suite}`);
  const isComplete = () => libraries(home, arch).length === 2;
  if (isComplete()) return home;
  if (cachedOnly) throw new Failure(`DPDK of ${suite} is not in ${home}: node scripts/dpdk.mjs ${suite}`);
  await makeEntry(home, { isComplete, fill: (complete, scratch) => fetchTo(complete, scratch, suite, arch) });
  say(`DPDK of ${suite} is in ${home}`);
  return home;
}

function libraries(root, { triplet }) {
  const directory = join(root, 'usr/lib', triplet);
  return existsSync(directory)
    ? readdirSync(directory).filter((name) => /^librte_(eal|bus_pci)\.so\.\d+$/.test(name))
    : [];
}

async function fetchTo(complete, scratch, suite, arch) {
  const apt = new PrivateApt(join(scratch, 'apt'), { architecture: arch.debian, suites: [suite], say });
  await apt.update();
  const needed = (await apt.dependencies(DEVELOPMENT)).filter((name) => LIBRARY.test(name));
  if (needed.length !== 2) throw new Failure(`${DEVELOPMENT} of ${suite} needs ${needed.join(' ') || 'no library'}`);
  say(`downloading ${needed.join(', ')}, their dependencies and headers, about 20 MB`);
  const debs = [
    ...(await apt.downloadWithDependencies(needed)),
    ...(await apt.download([DEVELOPMENT, ...C_LIBRARY, TOOLS])),
  ];
  makeMergedRoot(complete);
  say(`unpacking ${debs.length} packages`);
  await unpack(debs, complete);
  removeUnused(complete, arch);
  if (libraries(complete, arch).length !== 2) throw new Failure(`DPDK of ${suite} has no library of the PCI bus`);
}

/** The libraries of the drivers, for programs that are linked with all of them. */
function removeUnused(root, { triplet }) {
  const directory = join(root, 'usr/lib', triplet);
  for (const name of readdirSync(directory)) {
    if (/^librte_.*\.(a|so)$/.test(name)) rmSync(join(directory, name));
  }
}

/** Packages of suites before trixie put libraries into /lib too, which an installed Debian has as a link to /usr/lib. */
function makeMergedRoot(root) {
  for (const name of ['bin', 'lib', 'lib64', 'sbin']) {
    mkdirSync(join(root, 'usr', name), { recursive: true });
    symlinkSync(`usr/${name}`, join(root, name));
  }
}

await runScript(main, say);
