// Builds the VFIO selftests of Linux (tools/testing/selftests/vfio), which run on a device behind /dev/vfio, into a cache directory: of the newest
// kernel that Debian has the source of, or of the tree that VFIO_SHIM_LINUX names, 6.18 or newer. With gcc, make and Debian's libuuid; nothing
// is installed. Prints the directory on stdout, in which there is a program for each test; with --cached only if it is there already.
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { PrivateApt, unpack } from './lib/apt.mjs';
import { cachePath, makeEntry } from './lib/cache.mjs';
import { ARCHITECTURES } from './lib/own-loader.mjs';
import { Failure, run, runScript } from './lib/process.mjs';

const SELFTESTS = 'tools/testing/selftests';
/** What of a kernel's source they and the headers that they include are built of, beside the architecture's own. */
const NEEDED = [
  'Makefile',
  'drivers/dma/idxd',
  'drivers/dma/ioat',
  'include/asm-generic',
  'include/linux/pci_ids.h', // by a symbolic link, as the headers of these drivers
  'include/uapi',
  'scripts',
  'tools/arch',
  'tools/include',
  'tools/scripts',
  `${SELFTESTS}/kselftest.h`,
  `${SELFTESTS}/kselftest_harness.h`,
  `${SELFTESTS}/lib.mk`,
  `${SELFTESTS}/vfio`,
];
const ARCH = { x64: 'x86', arm64: 'arm64' };
/** The suite with the newest kernel, and one whose static library needs nothing of a newer C library. */
const NEWEST = 'sid';
const OLD = 'bookworm';
/** Which kernel's they are. */
const VERSION = 'VERSION';

const say = (text) => process.stderr.write(`vfio-selftests: ${text}\n`);

async function main(args) {
  const cachedOnly = args[0] === '--cached';
  if (args.length > (cachedOnly ? 1 : 0)) throw new Failure('usage: node scripts/vfio-selftests.mjs [--cached]');
  const arch = ARCHITECTURES[process.arch];
  if (process.platform !== 'linux' || arch === undefined) throw new Failure(`${process.platform} on ${process.arch}`);
  const tree = process.env.VFIO_SHIM_LINUX || undefined;
  const home = cachePath(
    tree === undefined ? 'vfio-selftests' : `vfio-selftests-${resolve(tree).replaceAll(/\W/g, '-')}`,
  );
  const isComplete = () => existsSync(join(home, VERSION));
  if (isComplete()) return home;
  if (cachedOnly) throw new Failure(`they are not in ${home}: node scripts/vfio-selftests.mjs`);
  await makeEntry(home, { isComplete, fill: (complete, scratch) => build(complete, scratch, arch, tree) });
  say(`they are in ${home}`);
  return home;
}

async function build(complete, scratch, arch, tree) {
  const source = join(scratch, 'linux');
  mkdirSync(source);
  const needed = [...NEEDED, `arch/${ARCH[process.arch]}`];
  if (tree === undefined) await fetchSource(source, scratch, arch, needed);
  else await run('cp', ['--recursive', '--parents', '--target-directory', source, ...needed], { cwd: resolve(tree) });
  const version = versionOf(source);
  const uuid = await fetchUuid(join(scratch, 'uuid'), join(scratch, 'apt-uuid'), arch);
  say(`building those of ${version}`);
  const kernel = (goal) => run('make', ['-s', '-C', source, `ARCH=${ARCH[process.arch]}`, goal]);
  await kernel('headers');
  const output = join(scratch, 'output');
  mkdirSync(output);
  const cflags = [`-I${uuid.include}`, ...missingIn(source)].join(' ');
  const variables = [`OUTPUT=${output}`, `KHDR_INCLUDES=-isystem ${source}/usr/include`, `EXTRA_CFLAGS=${cflags}`];
  const env = { LDFLAGS: `-L${uuid.library}` }; // on the command line, what the Makefile adds would be lost
  await run('make', ['-s', '-C', join(source, SELFTESTS, 'vfio'), ...variables], { env, explain });
  for (const name of readdirSync(output).filter((entry) => isProgram(join(output, entry)))) {
    copyFileSync(join(output, name), join(complete, name));
  }
  writeFileSync(join(complete, VERSION), `${version}\n`);
}

/** What a stable kernel's may use without having it: 7.2.13 has taken over a change that uses calloc_assert(), and not the one with it. */
function missingIn(source) {
  const library = join(source, SELFTESTS, 'vfio/lib');
  const files = readdirSync(library, { recursive: true }).map((name) => join(library, String(name)));
  const text = files.filter((file) => /\.[ch]$/.test(file)).map((file) => readFileSync(file, 'utf8'));
  const isUsed = text.some((each) => each.includes('calloc_assert('));
  const isThere = text.some((each) => /define calloc_assert|\*\s*calloc_assert\(/.test(each));
  return isUsed && !isThere ? ['-Dcalloc_assert=calloc'] : [];
}

function isProgram(path) {
  const stat = statSync(path);
  return stat.isFile() && (stat.mode & 0o100) !== 0;
}

function versionOf(source) {
  const text = readFileSync(join(source, 'Makefile'), 'utf8');
  return ['VERSION', 'PATCHLEVEL', 'SUBLEVEL']
    .map((name) => new RegExp(`^${name} = (\\d+)$`, 'm').exec(text)?.[1])
    .join('.');
}

async function fetchSource(into, scratch, arch, needed) {
  const apt = new PrivateApt(join(scratch, 'apt'), { architecture: arch.debian, suites: [NEWEST], say });
  await apt.update();
  const names = (await apt.dependencies('linux-source')).filter((name) => name.startsWith('linux-source-'));
  if (names.length !== 1) throw new Failure(`linux-source of ${NEWEST} needs ${names.join(' ') || 'no source'}`);
  say(`downloading ${names[0]}, about 160 MB`);
  const [deb] = await apt.download(names);
  const script =
    'dpkg-deb --fsys-tarfile "$1" | tar -x --to-stdout "./usr/src/$2.tar.xz" | tar -xJ --strip-components=1 -C "$3" "${@:4}"';
  const members = needed.map((path) => `${names[0]}/${path}`);
  await run('bash', ['-o', 'pipefail', '-c', script, 'unpack', deb, names[0], into, ...members]);
}

async function fetchUuid(root, state, arch) {
  const apt = new PrivateApt(state, { architecture: arch.debian, suites: [OLD], say });
  await apt.update();
  mkdirSync(root);
  await unpack(await apt.download(['uuid-dev']), root);
  return { include: join(root, 'usr/include'), library: join(root, 'usr/lib', arch.triplet) };
}

/** The compiler's first word. */
function explain(output) {
  return output.split('\n').find((line) => /\b(error|undefined reference)\b/.test(line));
}

await runScript(main, say);
