// Fetches libvfio-user as it was before and after it went to migration v2, and as it is today, and builds its library with its sample
// server and client into a cache directory, with gcc and Debian's json-c. Nothing is installed. Prints the directory on stdout, in which each
// commit has one with `server` and `client`; with --cached only if it is there already. VFIO_SHIM_LIBVFIO_USER names another repository
// to fetch from than GitHub's: a URL or a path.
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PrivateApt, unpack } from './lib/apt.mjs';
import { cachePath, makeEntry } from './lib/cache.mjs';
import { ARCHITECTURES } from './lib/own-loader.mjs';
import { Failure, run, runScript } from './lib/process.mjs';

/** The commits, whose numbers are what git checks them by. */
const COMMITS = {
  '1569a37': '1569a37a54ecb63bd4008708c76339ccf7d06115', // the last with v1, September 2023
  '190f85b': '190f85bf9c114bf7c981bb8908394368f84c0c04', // the first with v2
  efd091b: 'efd091bce1c1c2da64a1a935911a7c2300c848b2', // June 2026
};
const REPOSITORY = process.env.VFIO_SHIM_LIBVFIO_USER || 'https://github.com/nutanix/libvfio-user';
const JSON_C = 'libjson-c-dev';
/** The suite that it is taken from, with a static library that needs nothing of a newer C library. */
const SUITE = 'bookworm';

const say = (text) => process.stderr.write(`libvfio-user: ${text}\n`);

async function main(args) {
  const cachedOnly = args[0] === '--cached';
  if (args.length > (cachedOnly ? 1 : 0)) throw new Failure('usage: node scripts/libvfio-user.mjs [--cached]');
  const arch = ARCHITECTURES[process.arch];
  if (process.platform !== 'linux' || arch === undefined) throw new Failure(`${process.platform} on ${process.arch}`);
  const home = cachePath('libvfio-user');
  const isComplete = () => Object.keys(COMMITS).every((commit) => runs(join(home, commit, 'client')));
  if (isComplete()) return home;
  if (cachedOnly) throw new Failure(`it is not in ${home}: node scripts/libvfio-user.mjs`);
  await makeEntry(home, { isComplete, fill: (complete, scratch) => build(complete, scratch, arch) });
  say(`it is in ${home}`);
  return home;
}

/** The sample client is built last, and says how it is used. */
function runs(client) {
  return spawnSync(client, ['-h'], { encoding: 'utf8', timeout: 20_000 }).status === 0;
}

async function build(complete, scratch, arch) {
  const json = await fetchJson(join(scratch, 'json-c'), join(scratch, 'apt'), arch);
  const git = join(scratch, 'git');
  await run('git', ['init', '--quiet', '--bare', git]);
  for (const [name, commit] of Object.entries(COMMITS)) {
    say(`fetching ${name} from ${REPOSITORY}`);
    await run('git', ['-C', git, 'fetch', '--quiet', '--depth', '1', REPOSITORY, commit]);
    const source = join(scratch, name);
    mkdirSync(source);
    const archive = join(scratch, `${name}.tar`);
    await run('git', ['-C', git, 'archive', '--output', archive, commit, 'include', 'lib', 'samples', 'LICENSE']);
    await run('tar', ['-x', '-f', archive, '-C', source]);
    say(`building ${name}`);
    if (name === 'efd091b') mendSample(source);
    await compile(source, join(complete, name), json);
  }
}

/** As it is, it does not start: the library has refused BARs that are no power of 2 since the sample was written. */
function mendSample(source) {
  const file = join(source, 'samples/server.c');
  const text = readFileSync(file, 'utf8');
  if (!text.includes('bar1_size = 0x3000')) throw new Failure('samples/server.c has another BAR1');
  writeFileSync(file, text.replace('bar1_size = 0x3000', 'bar1_size = 0x4000'));
}

async function compile(source, into, { include, library }) {
  mkdirSync(into);
  const lib = join(source, 'lib');
  const library_sources = readdirSync(lib).filter((name) => name.endsWith('.c'));
  // as its own build does it (lib/meson.build, samples/meson.build), with its assertions
  const flags = ['-std=gnu99', '-O2', '-D_GNU_SOURCE', '-DWITH_TRAN_PIPE', '-w'];
  const includes = ['include', 'lib'].map((name) => `-I${join(source, name)}`);
  const gcc = (program, sources) => {
    const files = [join(source, 'samples', `${program}.c`), ...sources.map((name) => join(lib, name)), library];
    return run('gcc', [...flags, ...includes, `-I${include}`, '-o', join(into, program), ...files, '-lpthread']);
  };
  await gcc('server', library_sources);
  await gcc('client', ['migration.c', 'tran.c', 'tran_sock.c']);
  copyFileSync(join(source, 'LICENSE'), join(into, 'LICENSE'));
}

async function fetchJson(root, state, arch) {
  const apt = new PrivateApt(state, { architecture: arch.debian, suites: [SUITE], say });
  await apt.update();
  mkdirSync(root);
  await unpack(await apt.download([JSON_C]), root);
  const directories = readdirSync(join(root, 'usr/lib')).map((name) => join(root, 'usr/lib', name, 'libjson-c.a'));
  const [library] = directories;
  if (library === undefined) throw new Failure(`${JSON_C} of ${SUITE} has no library`);
  return { include: join(root, 'usr/include/json-c'), library };
}

await runScript(main, say);
