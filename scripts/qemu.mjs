// Fetches an unmodified QEMU of another Debian than the machine's, without touching the host's packages: qemu-system-x86 of a
// suite, or qemu-system-arm, with all it depends on, through a private apt state, unpacked into a cache directory of that suite, to
// be run by its own ld.so. Prints the path of a wrapper on stdout; with --cached only if it is there already.
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PrivateApt, unpack } from './lib/apt.mjs';
import { cachePath, makeEntry } from './lib/cache.mjs';
import { ARCHITECTURES, commandLine, EMULATORS, wrapperText } from './lib/own-loader.mjs';
import { Failure, runScript } from './lib/process.mjs';

/** The first versions of QEMU that each suite may have. All but the last are what they are for good. */
const SUITES = {
  bullseye: { is: '5.2', matches: /^5\.2\./ },
  bookworm: { is: '7.2', matches: /^7\.2\./ },
  trixie: { is: '10.0', matches: /^10\.0\./ },
  sid: { is: '11 or newer', matches: /^(1[1-9]|[2-9]\d)\./ },
};

const say = (text) => process.stderr.write(`qemu: ${text}\n`);

async function main(args) {
  const cachedOnly = args[0] === '--cached';
  const [suite = '', emulated = 'x86_64', ...more] = cachedOnly ? args.slice(1) : args;
  if (!Object.hasOwn(SUITES, suite) || !Object.hasOwn(EMULATORS, emulated) || more.length > 0) {
    const [suites, processors] = [SUITES, EMULATORS].map((table) => Object.keys(table).join('|'));
    throw new Failure(`usage: node scripts/qemu.mjs [--cached] ${suites} [${processors}]`);
  }
  const arch = ARCHITECTURES[process.arch];
  if (process.platform !== 'linux' || arch === undefined) {
    throw new Failure(
      `${process.platform} on ${process.arch} is not supported: Debian has QEMU for Linux on x64 and arm64`,
    );
  }
  const home = cachePath(emulated === 'x86_64' ? `qemu-${suite}` : `qemu-${suite}-${emulated}`);
  const wrapper = join(home, `qemu-system-${emulated}`);
  const isComplete = () => versionOf(suite, [wrapper]) !== undefined;
  if (isComplete()) return wrapper;
  if (cachedOnly)
    throw new Failure(`the QEMU of ${suite} is not in ${home}: node scripts/qemu.mjs ${args.slice(1).join(' ')}`);
  const fill = (complete, scratch) => fetchTo({ home, complete, scratch }, suite, emulated, arch);
  await makeEntry(home, { isComplete, fill });
  say(`QEMU ${versionOf(suite, [wrapper])} is in ${home}`);
  return wrapper;
}

/** The version that a QEMU names, if it is one of the suite's. */
function versionOf(suite, [file, ...args]) {
  const { stdout } = spawnSync(file, [...args, '--version'], { encoding: 'utf8', timeout: 20_000 });
  const version = /^QEMU emulator version (\S+)/.exec(stdout ?? '')?.[1];
  return version !== undefined && SUITES[suite].matches.test(version) ? version : undefined;
}

async function fetchTo({ home, complete, scratch }, suite, emulated, arch) {
  const name = EMULATORS[emulated].package;
  const apt = new PrivateApt(join(scratch, 'apt'), { architecture: arch.debian, suites: [suite], say });
  await apt.update();
  say(`downloading ${name} of ${suite} and its dependencies, about 40 MB`);
  const debs = await apt.downloadWithDependencies([name]);
  say(`unpacking ${debs.length} packages`);
  const root = join(complete, 'root');
  makeMergedRoot(root);
  await unpack(debs, root);
  if (versionOf(suite, commandLine(root, arch, emulated)) === undefined) {
    throw new Failure(`the QEMU of ${suite} is not ${SUITES[suite].is}, or it does not run here`);
  }
  const wrapper = join(complete, `qemu-system-${emulated}`);
  writeFileSync(wrapper, wrapperText(join(home, 'root'), arch, emulated));
  chmodSync(wrapper, 0o755);
}

/** Packages of suites before trixie put libraries into /lib too, which an installed Debian has as a link to /usr/lib. */
function makeMergedRoot(root) {
  for (const name of ['bin', 'lib', 'lib64', 'sbin']) {
    mkdirSync(join(root, 'usr', name), { recursive: true });
    symlinkSync(`usr/${name}`, join(root, name));
  }
}

await runScript(main, say);
