// Fetches an unmodified QEMU 10.0, a VMM that speaks v2, without touching the host's packages: Debian trixie's
// qemu-system-x86 with all it depends on, through a private apt state, unpacked into a cache directory, to be run by its own
// ld.so. Prints the path of a wrapper on stdout; with --cached only if it is there already.
import { execFile, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, readdirSync } from 'node:fs';
import { renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { promisify } from 'node:util';

const SUITE = 'trixie';
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
const PACKAGE = 'qemu-system-x86';
const WANTED = '10.0';
const DEFAULT_MIRROR = 'http://deb.debian.org/debian';
/** What distinguishes a mirror of Debian in the host's sources from other archives. */
const DEBIAN_SUITES = /^(bullseye|bookworm|trixie|forky|duke|sid|(old)*stable|testing|unstable)$/;
const ARCHITECTURES = {
  x64: { debian: 'amd64', triplet: 'x86_64-linux-gnu', loader: 'ld-linux-x86-64.so.2' },
  arm64: { debian: 'arm64', triplet: 'aarch64-linux-gnu', loader: 'ld-linux-aarch64.so.1' },
};
const STALE_MS = 24 * 3600 * 1000;

/** Said on stderr in one line. */
class Failure extends Error {}

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
  const home = cacheDirectory();
  const wrapper = join(home, 'qemu-system-x86_64');
  if (versionOf([wrapper]) !== undefined) return wrapper;
  if (cachedOnly) throw new Failure(`QEMU ${WANTED} is not in ${home}: node scripts/qemu10.mjs`);
  await fetchInto(home, arch);
  say(`QEMU ${versionOf([wrapper])} is in ${home}`);
  return wrapper;
}

function cacheDirectory() {
  const xdg = process.env.XDG_CACHE_HOME ?? '';
  // The XDG base directory specification has relative paths ignored.
  const base = process.env.VFIO_SHIM_CACHE || join(isAbsolute(xdg) ? xdg : join(homedir(), '.cache'), 'vfio-shim');
  const home = resolve(base, 'qemu-10');
  // ld.so separates directories with colons and semicolons; apt.conf has no escape for quotes.
  if (/[:;"\n]/.test(home)) throw new Failure(`${home}: a cache directory cannot have a colon, a semicolon or a quote`);
  return home;
}

/** The version that a QEMU names, if it is the one we want. */
function versionOf([file, ...args]) {
  const { stdout } = spawnSync(file, [...args, '--version'], { encoding: 'utf8', timeout: 20_000 });
  const version = /^QEMU emulator version (\S+)/.exec(stdout ?? '')?.[1];
  return version?.startsWith(`${WANTED}.`) ? version : undefined;
}

/** QEMU below `root`, run by the ld.so there and with its libraries, modules and firmware. */
function commandLine(root, { triplet, loader }) {
  const libraries = join(root, 'usr/lib', triplet);
  const firmware = ['seabios', 'qemu'].flatMap((name) => ['-L', join(root, 'usr/share', name)]);
  const qemu = join(root, 'usr/bin/qemu-system-x86_64');
  return [join(libraries, loader), '--inhibit-cache', '--library-path', libraries, qemu, ...firmware];
}

function wrapperText(root, arch) {
  const quote = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;
  const modules = join(root, 'usr/lib', arch.triplet, 'qemu');
  return `#!/bin/sh
# QEMU ${WANTED} of Debian ${SUITE} with its own libraries. Written by scripts/qemu10.mjs of vfio-shim.
export QEMU_MODULE_DIR=${quote(modules)}
exec ${commandLine(root, arch).map(quote).join(' ')} "$@"
`;
}

/** Makes everything in a directory beside `home` and renames it when it is complete, so that several may do so at once. */
async function fetchInto(home, arch) {
  mkdirSync(dirname(home), { recursive: true });
  removeStale(dirname(home));
  const staging = mkdtempSync(`${home}.part-`);
  const end = () => process.exit(1);
  process
    .once('SIGINT', end)
    .once('SIGTERM', end)
    .once('SIGHUP', end)
    .once('exit', () => {
      running?.kill();
      rmSync(staging, { recursive: true, force: true, maxRetries: 5 });
    });

  const complete = join(staging, 'complete');
  const root = join(complete, 'root');
  mkdirSync(root, { recursive: true });
  const debs = await download(join(staging, 'apt'), arch);
  say(`unpacking ${debs.length} packages`);
  for (const deb of debs) await run('dpkg-deb', ['-x', deb, root]);
  dropPrivilegeBits(root);
  if (versionOf(commandLine(root, arch)) === undefined) {
    throw new Failure(`the QEMU of ${SUITE} is not ${WANTED}, or it does not run here`);
  }
  const wrapper = join(complete, 'qemu-system-x86_64');
  writeFileSync(wrapper, wrapperText(join(home, 'root'), arch));
  chmodSync(wrapper, 0o755);
  publish(complete, home, join(staging, 'broken'));
}

function publish(complete, home, broken) {
  for (;;) {
    try {
      renameSync(complete, home);
      return;
    } catch (error) {
      if (!['ENOTEMPTY', 'EEXIST'].includes(error.code)) throw error;
    }
    if (versionOf([join(home, 'qemu-system-x86_64')]) !== undefined) return; // another process was faster
    rmSync(broken, { recursive: true, force: true });
    try {
      renameSync(home, broken);
    } catch (error) {
      if (error.code !== 'ENOENT') throw error;
    }
  }
}

/** Removes what killed predecessors left. */
function removeStale(directory) {
  for (const name of readdirSync(directory).filter((name) => name.startsWith('qemu-10.part-'))) {
    const path = join(directory, name);
    const age = Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
    if (age > STALE_MS) rmSync(path, { recursive: true, force: true });
  }
}

/** The dependencies have set-user-ID programs, which have no business in a cache. */
function dropPrivilegeBits(root) {
  for (const name of readdirSync(root, { recursive: true })) {
    const { mode } = lstatSync(join(root, name));
    if ((mode & 0o170000) === 0o100000 && (mode & 0o6000) !== 0) chmodSync(join(root, name), mode & 0o1777);
  }
}

/** Downloads the package and what it depends on; returns the files. */
async function download(directory, arch) {
  if (!existsSync(KEYRING)) throw new Failure(`${KEYRING} is missing: install the package debian-archive-keyring`);
  for (const name of ['lists/partial', 'archives/partial']) mkdirSync(join(directory, name), { recursive: true });
  const options = ['-c', join(directory, 'apt.conf'), '-q', '-y'];
  writeFileSync(options[1], aptConfiguration(directory, arch));
  writeFileSync(join(directory, 'status'), '');
  await update(directory, options);
  say(`downloading ${PACKAGE} and its dependencies, about 40 MB`);
  await run('apt-get', [...options, 'install', '--download-only', '--no-install-recommends', PACKAGE]);
  const archives = join(directory, 'archives');
  return readdirSync(archives)
    .filter((name) => name.endsWith('.deb'))
    .map((name) => join(archives, name));
}

/** Read after the host's own configuration, whose proxies and passwords stay in force. */
function aptConfiguration(directory, arch) {
  return `
#clear APT::Architectures;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Default-Release;
APT::Architecture "${arch.debian}";
APT::Architectures { "${arch.debian}"; };
APT::Sandbox::User "root"; // apt's own user cannot enter a home directory
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Dir::Cache "${directory}";
Dir::Cache::archives "archives";
Dir::Etc::sourcelist "${directory}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Log "${directory}";
Dir::State "${directory}";
Dir::State::lists "lists";
Dir::State::status "${directory}/status";
`;
}

/** Reads the package lists from the host's mirror, or from Debian's where that has none. */
async function update(directory, options) {
  const failures = [];
  for (const mirror of new Set([...hostMirrors(), DEFAULT_MIRROR])) {
    writeFileSync(
      join(directory, 'sources.list'),
      `deb [target=Packages signed-by=${KEYRING}] ${mirror} ${SUITE} main\n`,
    );
    say(`reading the package lists of ${SUITE} from ${mirror}`);
    try {
      await run('apt-get', [...options, 'update']);
      return;
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      failures.push(error);
    }
  }
  throw failures[0];
}

/** The mirrors of Debian that the host's apt is configured with. */
function hostMirrors() {
  const parts = existsSync('/etc/apt/sources.list.d') ? readdirSync('/etc/apt/sources.list.d').toSorted() : [];
  const names = ['sources.list', ...parts.map((name) => `sources.list.d/${name}`)];
  const files = names.filter((name) => /\.(list|sources)$/.test(name)).map((name) => `/etc/apt/${name}`);
  return files.filter(existsSync).flatMap((file) => {
    const text = readFileSync(file, 'utf8').replaceAll(/^#.*\n?/gm, '');
    const sources = file.endsWith('.sources')
      ? text.split(/\n\s*\n/).map(parseStanza)
      : text.split('\n').map(parseLine);
    return sources.filter(isDebian).map(({ uri }) => uri.replace(/\/$/, ''));
  });
}

function isDebian(source) {
  return (
    source !== undefined &&
    !source.uri.startsWith('cdrom:') &&
    source.suites.some((name) => DEBIAN_SUITES.test(name)) &&
    source.components.includes('main')
  );
}

/** `deb [options] uri suite component...` (sources.list(5)). */
function parseLine(line) {
  const [, uri, suite, rest = ''] = /^\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)([^#]*)/.exec(line) ?? [];
  return uri === undefined ? undefined : { uri, suites: [suite], components: rest.trim().split(/\s+/) };
}

/** The same in deb822 format. */
function parseStanza(text) {
  const words = (field) =>
    new RegExp(String.raw`^${field}:((?:.*\n[ \t])*.*)`, 'im').exec(text)?.[1].trim().split(/\s+/) ?? [];
  const [uri = ''] = words('URIs');
  const off = /^(no|false|without|off|disable)$/i.test(words('Enabled')[0] ?? 'yes');
  if (uri === '' || off || !words('Types').includes('deb')) return undefined;
  return { uri, suites: words('Suites'), components: words('Components') };
}

/** The program that runs now. */
let running;

/** Runs a program to its end. */
async function run(file, args) {
  const done = promisify(execFile)(file, args, { env: { ...process.env, LC_ALL: 'C' }, maxBuffer: 2 ** 26 });
  running = done.child;
  try {
    await done;
  } catch ({ code, signal, stdout, stderr }) {
    if (code === 'ENOENT') throw new Failure(`no ${file}: this needs apt and dpkg, as Debian and Ubuntu have them`);
    throw new Failure(explain(file, `${stdout}${stderr}`, signal ?? code));
  }
}

/** What went wrong, from what apt printed. */
function explain(file, output, how) {
  const lines = output.split('\n').filter((line) => line.trim() !== '');
  const find = (pattern) => lines.find((line) => pattern.test(line))?.replace(/^(E|W|Err:\d+|\s)+:?\s*/, '');
  const unsigned = find(/NO_PUBKEY|missing key|is not signed|no public key/i);
  if (unsigned !== undefined) return `${KEYRING} lacks the key of ${SUITE}, it needs a newer version: ${unsigned}`;
  const away = find(/could not resolve|failure resolving|(could not|unable to) connect|unreachable|timed out|refused/i);
  if (away !== undefined) return `no network: ${away}`;
  return `${file} failed (${how}): ${find(/^E: /) ?? lines.at(-1) ?? 'it printed nothing'}`;
}

try {
  console.log(await main(process.argv.slice(2)));
} catch (error) {
  if (!(error instanceof Failure) && error.syscall === undefined) throw error;
  say(error.message);
  process.exitCode = 1;
}
