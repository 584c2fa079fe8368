// Fetches an unmodified QEMU 10.0, a VMM that speaks v2, without touching the host's packages: Debian trixie's
// qemu-system-x86 with all it depends on, through a private apt state, unpacked into a cache directory, to be run by its own
// ld.so. Prints the path of a wrapper on stdout; with --cached only if it is there already.
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PrivateApt, unpack } from './lib/apt.mjs';
import { cachePath, makeEntry } from './lib/cache.mjs';
import { ARCHITECTURES, commandLine, wrapperText } from './lib/own-loader.mjs';
import { Failure } from './lib/process.mjs';

const SUITE = 'trixie';
const PACKAGE = 'qemu-system-x86';
const WANTED = '10.0';

const say = (text) => process.stderr.write(`qemu10: ${text}\n`);

async function main(args) {
  const cachedOnly = args[0] === '--cached';
  if (args.length > Number(cachedOnly)) throw new Failure('usage: node scripts/qemu10.mjs [--cached]');
  const arch = ARCHITECTURES[process.arch];
  if (process.platform !== 'linux' || arch === undefined) {
    throw new Failure(
      `${process.platform} on ${process.arch} is not supported: Debian has QEMU for Linux on x64 and arm64`,
    );
  }
  const home = cachePath('qemu-10');
  const wrapper = join(home, 'qemu-system-x86_64');
  const isComplete = () => versionOf([wrapper]) !== undefined;
  if (isComplete()) return wrapper;
  if (cachedOnly) throw new Failure(`QEMU ${WANTED} is not in ${home}: node scripts/qemu10.mjs`);
  await makeEntry(home, { isComplete, fill: (complete, scratch) => fill(home, complete, scratch, arch) });
  say(`QEMU ${versionOf([wrapper])} is in ${home}`);
  return wrapper;
}

/** The version that a QEMU names, if it is the one we want. */
function versionOf([file, ...args]) {
  const { stdout } = spawnSync(file, [...args, '--version'], { encoding: 'utf8', timeout: 20_000 });
  const version = /^QEMU emulator version (\S+)/.exec(stdout ?? '')?.[1];
  return version?.startsWith(`${WANTED}.`) ? version : undefined;
}

async function fill(home, complete, scratch, arch) {
  const apt = new PrivateApt(join(scratch, 'apt'), { architecture: arch.debian, suites: [SUITE], say });
  await apt.update();
  say(`downloading ${PACKAGE} and its dependencies, about 40 MB`);
  const debs = await apt.downloadWithDependencies([PACKAGE]);
  say(`unpacking ${debs.length} packages`);
  const root = join(complete, 'root');
  mkdirSync(root);
  await unpack(debs, root);
  if (versionOf(commandLine(root, arch)) === undefined) {
    throw new Failure(`the QEMU of ${SUITE} is not ${WANTED}, or it does not run here`);
  }
  const wrapper = join(complete, 'qemu-system-x86_64');
  writeFileSync(wrapper, wrapperText(join(home, 'root'), arch));
  chmodSync(wrapper, 0o755);
}

try {
  console.log(await main(process.argv.slice(2)));
} catch (error) {
  if (!(error instanceof Failure) && error.syscall === undefined) throw error;
  say(error.message);
  process.exitCode = 1;
}
