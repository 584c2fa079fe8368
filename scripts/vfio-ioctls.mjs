// Fetches rust-vmm's crates vfio-ioctls and vfio-bindings, by which Cloud Hypervisor drives VFIO devices, from GitHub, and the crates that they
// need from Debian, into a cache directory. Nothing is installed. Prints the directory on stdout, in which vfio-ioctls, vfio-bindings and
// registry are; with --cached only if it is there already. VFIO_SHIM_RUST_VMM names another repository to fetch from than GitHub's: a URL or a path.
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PrivateApt, unpack } from './lib/apt.mjs';
import { cachePath, makeEntry } from './lib/cache.mjs';
import { ARCHITECTURES } from './lib/own-loader.mjs';
import { Failure, run, runScript } from './lib/process.mjs';

/** April 2026: 0.6.0 and the requests of migration v2, as pull request 140 has it. */
const COMMIT = 'f9c1fcf93247db9f390da251ab9c07310a43dc1b';
const REPOSITORY = process.env.VFIO_SHIM_RUST_VMM || 'https://github.com/rust-vmm/vfio';
/** What they need, and what that needs, of a suite that does not change. */
const SUITE = 'trixie';
const CRATES = [
  'bitflags',
  'bitflags-1',
  'byteorder',
  'kvm-bindings',
  'kvm-ioctls',
  'libc',
  'log',
  'proc-macro2',
  'quote',
  'syn',
  'thiserror',
  'thiserror-1',
  'thiserror-impl',
  'thiserror-impl-1',
  'unicode-ident',
  'vm-memory',
  'vmm-sys-util',
];

/**
 * Theirs ask for later versions than are needed, and for crates that Debian has not: those of iommufd, which whoever uses this has to patch
 * in, and those for Windows.
 */
const MANIFESTS = {
  'vfio-bindings': `[package]
name = "vfio-bindings"
version = "0.6.2"
edition = "2018"

[features]
fam-wrappers = []
`,
  'vfio-ioctls': `[package]
name = "vfio-ioctls"
version = "0.6.0"
edition = "2018"

[features]
kvm = []
mshv = []
vfio_cdev = []

[dependencies]
byteorder = "1"
iommufd-bindings = "0.1"
iommufd-ioctls = "0.1"
kvm-bindings = "0.10"
kvm-ioctls = "0.19"
libc = "0.2"
log = "0.4"
thiserror = "2"
vfio-bindings = { path = "../vfio-bindings" }
vm-memory = { version = "0.16", features = ["backend-mmap"] }
vmm-sys-util = "0.12"
`,
  winapi: `[package]
name = "winapi"
version = "0.3.9"

[features]
errhandlingapi = []
sysinfoapi = []

[lib]
path = "empty.rs"
`,
};

const say = (text) => process.stderr.write(`vfio-ioctls: ${text}\n`);

async function main(args) {
  const cachedOnly = args[0] === '--cached';
  if (args.length > (cachedOnly ? 1 : 0)) throw new Failure('usage: node scripts/vfio-ioctls.mjs [--cached]');
  const arch = ARCHITECTURES[process.arch];
  if (process.platform !== 'linux' || arch === undefined) throw new Failure(`${process.platform} on ${process.arch}`);
  const home = cachePath(`vfio-ioctls-${COMMIT.slice(0, 7)}`);
  const isComplete = () => existsSync(join(home, 'registry')) && isWhole(join(home, 'registry'));
  if (isComplete()) return home;
  if (cachedOnly) throw new Failure(`it is not in ${home}: node scripts/vfio-ioctls.mjs`);
  await makeEntry(home, { isComplete, fill: (complete, scratch) => fetchTo(complete, scratch, arch) });
  say(`it is in ${home}`);
  return home;
}

/** All crates are there, not those of an earlier list. */
function isWhole(registry) {
  const names = readdirSync(registry);
  return CRATES.every((crate) => names.some((name) => name.startsWith(`${crate.replace(/-\d+$/, '')}-`)));
}

async function fetchTo(complete, scratch, arch) {
  say(`fetching ${COMMIT.slice(0, 7)} from ${REPOSITORY}`);
  const git = join(scratch, 'git');
  await run('git', ['init', '--quiet', '--bare', git]);
  await run('git', ['-C', git, 'fetch', '--quiet', '--depth', '1', REPOSITORY, COMMIT]);
  const archive = join(scratch, 'source.tar');
  const paths = ['vfio-bindings', 'vfio-ioctls'];
  await run('git', ['-C', git, 'archive', '--output', archive, COMMIT, ...paths]);
  await run('tar', ['-x', '-f', archive, '-C', complete]);
  for (const [name, manifest] of Object.entries(MANIFESTS)) {
    mkdirSync(join(complete, name), { recursive: true });
    writeFileSync(join(complete, name, 'Cargo.toml'), manifest);
  }
  writeFileSync(join(complete, 'winapi/empty.rs'), '');
  const root = join(scratch, 'root');
  mkdirSync(root);
  const apt = new PrivateApt(join(scratch, 'apt'), { architecture: arch.debian, suites: [SUITE], say });
  await apt.update();
  await unpack(await apt.download(CRATES.map((name) => `librust-${name}-dev`)), root);
  const registry = join(root, 'usr/share/cargo/registry');
  if (!existsSync(registry)) throw new Failure(`the crates of ${SUITE} are elsewhere`);
  rmSync(join(complete, 'registry'), { recursive: true, force: true });
  renameSync(registry, join(complete, 'registry'));
}

await runScript(main, say);
